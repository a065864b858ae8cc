package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/internal/errdefs"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

func (s *Server) dockerSystemRoutes() []dockerRoute {
	return []dockerRoute{
		{"GET /version", nil, nil, get(func(*http.Request) (any, error) { return s.version(), nil })},
		{"GET /info", nil, nil, get(func(*http.Request) (any, error) { return s.systemInfo(), nil })},
		{
			"GET /events",
			append(kind("time", "since", "until"), kind("filters", "filters")...),
			[]string{
				"type", "event", "container", "network", "label", "scope",
				"config", "daemon", "image", "node", "plugin", "secret", "service", "volume",
			},
			s.streamEvents,
		},
	}
}

func (s *Server) version() system.VersionResponse {
	i := s.b.Info()
	return system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "usernet"},
		Version:       i.Version,
		APIVersion:    APIVersion,
		MinAPIVersion: MinAPIVersion,
		Os:            "linux",
		Arch:          runtime.GOARCH,
		GoVersion:     runtime.Version(),
		KernelVersion: kernel(),
		Components: []system.ComponentVersion{{
			Name:    "Engine",
			Version: i.Version,
			Details: map[string]string{
				"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion, "Os": "linux", "Arch": runtime.GOARCH,
				"GoVersion": runtime.Version(), "KernelVersion": kernel(),
			},
		}},
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// systemInfo is GET /info. What dockerd shows as an empty list or object is one here too: clients index them.
// networkDrivers are the names of the drivers of networks.
func networkDrivers() []string {
	var list []string
	for _, d := range network.Drivers {
		list = append(list, d.Name)
	}
	return list
}

func (s *Server) systemInfo() system.Info {
	i := s.b.Info()
	name, _ := os.Hostname() // "" says as much
	return system.Info{
		ID:                i.StateDir,
		Name:              name,
		Containers:        i.Containers,
		ContainersRunning: i.Running,
		ContainersStopped: i.Containers - i.Running,
		Driver:            "usernet",
		DriverStatus:      [][2]string{},
		Plugins: system.PluginsInfo{
			Volume:        []string{},
			Network:       networkDrivers(),
			Authorization: []string{},
			Log:           []string{"json-file"},
		},
		LoggingDriver:   "json-file",
		CgroupDriver:    cgroupDriver(i.Cgroups),
		CgroupVersion:   cgroupVersion(),
		MemoryLimit:     slices.Contains(i.Cgroups.Controllers, cgroup.Memory),
		SwapLimit:       slices.Contains(i.Cgroups.Controllers, cgroup.Memory),
		CPUCfsQuota:     slices.Contains(i.Cgroups.Controllers, cgroup.CPU),
		CPUCfsPeriod:    slices.Contains(i.Cgroups.Controllers, cgroup.CPU),
		PidsLimit:       slices.Contains(i.Cgroups.Controllers, cgroup.Pids),
		KernelVersion:   kernel(),
		OSType:          "linux",
		OperatingSystem: "usernet",
		Architecture:    runtime.GOARCH,
		NCPU:            runtime.NumCPU(),
		MemTotal:        memoryTotal(),
		DockerRootDir:   i.StateDir,
		ServerVersion:   i.Version,
		SystemTime:      time.Now().Format(time.RFC3339Nano),
		Labels:          []string{},
		Runtimes:        map[string]system.RuntimeWithStatus{},
		RegistryConfig:  &registry.ServiceConfig{},
		CDISpecDirs:     []string{},
		Swarm:           swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		SecurityOptions: []string{"name=rootless"},
		Warnings:        i.Warnings,
		NGoroutines:     runtime.NumGoroutine(),
		NFd:             openDescriptors(),
	}
}

// cgroupDriver is how containers are limited, in Docker's words.
func cgroupDriver(c Cgroups) string {
	if c.Root == "" {
		return "none"
	}
	return "cgroupfs"
}

// cgroupVersion is 2 where the unified hierarchy is mounted (cgroups(7)), else 1.
func cgroupVersion() string {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

// memoryTotal is the machine's memory in bytes, 0 where the kernel does not say.
func memoryTotal() int64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 0
	}
	return int64(uint64(i.Totalram) * uint64(i.Unit))
}

// openDescriptors counts this process's open files. The daemon is not dumpable, so that nobody else can.
func openDescriptors() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return len(names) - 1 // without the one that reads them
}

// streamEvents sends events as they happen, each flushed at once.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	f, err := readFilters(r)
	if err != nil {
		fail(w, err)
		return
	}
	q := r.URL.Query()
	since, err1 := parseTime(q.Get("since"))
	until, err2 := parseTime(q.Get("until"))
	if err := cmp.Or(err1, err2); err != nil {
		fail(w, err)
		return
	}
	if !since.IsZero() && !until.IsZero() && since.After(until) {
		fail(w, errdefs.Invalid("`since` time (%s) cannot be after `until` time (%s)", q.Get("since"), q.Get("until")))
		return
	}
	flushHeader(w)
	flush, enc := http.NewResponseController(w), json.NewEncoder(w)
	err = s.b.Events(r.Context(), since, until, func(e Event) error {
		if !f.matchEvent(e) {
			return nil
		}
		err := enc.Encode(events.Message{
			Type:     events.Type(e.Type),
			Action:   events.Action(e.Action),
			Actor:    events.Actor{ID: e.ID, Attributes: e.Attributes},
			Scope:    "local",
			Time:     e.Time.Unix(),
			TimeNano: e.Time.UnixNano(),
		})
		if err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil {
		panic(http.ErrAbortHandler) // without the last chunk: the client shall not take this for the end of the events
	}
}
