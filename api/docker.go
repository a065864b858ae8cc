package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/network"
)

// Versions of Docker's API that are spoken: from the oldest that dockerd still had in 2025 to that of the type module.
const (
	APIVersion    = "1.56"
	MinAPIVersion = "1.24"
)

var versioned = regexp.MustCompile(`^/v(\d+\.\d+)(/.*)$`)

// withoutVersion takes the /v1.NN off a path, and says which versions there are.
func withoutVersion(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Api-Version", APIVersion)
		h.Set("Ostype", "linux")
		h.Set("Docker-Experimental", "false")
		h.Set("Server", "usernet (linux)")
		if m := versioned.FindStringSubmatch(r.URL.Path); m != nil {
			if older(m[1], MinAPIVersion) {
				fail(w, network.Errorf(network.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", m[1], MinAPIVersion))
				return
			}
			if older(APIVersion, m[1]) {
				fail(w, network.Errorf(network.Invalid, "client version %s is too new. Maximum supported API version is %s", m[1], APIVersion))
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), versionKey{}, m[1]))
			r.URL.Path, r.URL.RawPath = m[2], ""
		}
		next.ServeHTTP(w, r)
	})
}

type versionKey struct{}

// before says whether r asks for an API older than version; without a version it asks for the newest.
func before(r *http.Request, version string) bool {
	v, ok := r.Context().Value(versionKey{}).(string)
	return ok && older(v, version)
}

// older compares versions such as 1.9 and 1.24.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

func numbers(v string) []int {
	var list []int
	for _, s := range strings.Split(v, ".") {
		n, _ := strconv.Atoi(s)
		list = append(list, n)
	}
	return list
}

// dockerRoutes are the paths of Docker's Engine API.
func (s *Server) dockerRoutes(m *http.ServeMux) {
	m.HandleFunc("GET /version", get(func(*http.Request) (any, error) { return s.version(), nil }))
	m.HandleFunc("GET /info", get(func(*http.Request) (any, error) { return s.systemInfo(), nil }))
	m.HandleFunc("GET /events", s.streamEvents)
	m.HandleFunc("GET /networks", get(s.listNetworks))
	m.HandleFunc("GET /networks/{ref}", get(func(r *http.Request) (any, error) {
		n, err := s.b.Network(r.PathValue("ref"))
		if err != nil {
			return nil, err
		}
		return dockerNetworkInspect(n, s.b.Containers(), !before(r, "1.52")), nil
	}))
	m.HandleFunc("POST /networks/create", s.createNetwork)
	m.HandleFunc("POST /networks/prune", get(s.pruneNetworks))
	m.HandleFunc("DELETE /networks/{ref}", empty(http.StatusNoContent, func(r *http.Request) error {
		return s.b.RemoveNetwork(r.Context(), r.PathValue("ref"))
	}))
	m.HandleFunc("POST /networks/{ref}/connect", lenient(func(r *http.Request, q dockernet.ConnectRequest) (any, error) {
		e, err := endpointSpec(q.EndpointConfig)
		if err != nil {
			return nil, err
		}
		return nil, s.b.Connect(r.Context(), r.PathValue("ref"), q.Container, e)
	}))
	m.HandleFunc("POST /networks/{ref}/disconnect", lenient(func(r *http.Request, q dockernet.DisconnectRequest) (any, error) {
		return nil, s.b.Disconnect(r.Context(), r.PathValue("ref"), q.Container, q.Force)
	}))
	m.HandleFunc("GET /containers/json", get(s.listContainers))
	m.HandleFunc("GET /containers/{ref}/json", get(func(r *http.Request) (any, error) {
		c, err := s.b.Container(r.PathValue("ref"))
		if err != nil {
			return nil, err
		}
		bound, err := s.b.Published(c.ID)
		if err != nil {
			return nil, err
		}
		path, _ := s.b.LogPath(c.ID)
		inspect := dockerInspect(c, bound, path)
		if before(r, "1.52") {
			return withBridgeFields(inspect)
		}
		return inspect, nil
	}))
	// `docker inspect NAME` asks for a container, an image, a network, a volume and a plugin, and goes on at 404 only.
	m.HandleFunc("GET /images/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutSuffix(r.PathValue("rest"), "/json")
		if !ok {
			unknown(w, r)
			return
		}
		fail(w, network.Errorf(network.NotFound, "No such image: %s", name))
	})
	m.HandleFunc("GET /volumes/{name}", get(func(r *http.Request) (any, error) {
		return nil, network.Errorf(network.NotFound, "get %s: no such volume", r.PathValue("name"))
	}))
	m.HandleFunc("GET /plugins/{name}/json", get(func(r *http.Request) (any, error) {
		return nil, network.Errorf(network.NotFound, "plugin %q not found", r.PathValue("name"))
	}))
	m.HandleFunc("POST /containers/{ref}/stop", s.stopContainer)
	m.HandleFunc("POST /containers/{ref}/kill", empty(http.StatusNoContent, func(r *http.Request) error {
		return s.b.KillContainer(r.Context(), r.PathValue("ref"), r.URL.Query().Get("signal"))
	}))
	m.HandleFunc("POST /containers/{ref}/rename", empty(http.StatusNoContent, func(r *http.Request) error {
		return s.b.RenameContainer(r.Context(), r.PathValue("ref"), r.URL.Query().Get("name"))
	}))
	m.HandleFunc("POST /containers/{ref}/wait", get(func(r *http.Request) (any, error) {
		code, err := s.b.WaitContainer(r.Context(), r.PathValue("ref"))
		return container.WaitResponse{StatusCode: int64(code)}, err
	}))
	m.HandleFunc("DELETE /containers/{ref}", empty(http.StatusNoContent, func(r *http.Request) error {
		force, _ := strconv.ParseBool(r.URL.Query().Get("force"))
		return s.b.RemoveContainer(r.Context(), r.PathValue("ref"), force)
	}))
}

func empty(status int, f func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := f(r); err != nil {
			fail(w, err)
			return
		}
		w.WriteHeader(status)
	}
}

// lenient is with, for requests whose senders may know fields that this daemon does not.
func lenient[T any](f func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var t T
		if err := json.NewDecoder(r.Body).Decode(&t); err != nil {
			fail(w, network.Errorf(network.Invalid, "invalid JSON: %w", err))
			return
		}
		v, err := f(r, t)
		if err == nil && v == nil {
			w.WriteHeader(http.StatusOK)
			return
		}
		reply(w, v, err)
	}
}

// stopContainer answers 304 where the container does not run.
func (s *Server) stopContainer(w http.ResponseWriter, r *http.Request) {
	c, err := s.b.Container(r.PathValue("ref"))
	if err != nil {
		fail(w, err)
		return
	}
	if c.Status != network.Running {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	t, err := strconv.Atoi(r.URL.Query().Get("t"))
	if err != nil || t < 0 {
		t = 10
	}
	if err := s.b.StopContainer(r.Context(), c.ID, r.URL.Query().Get("signal"), time.Duration(t)*time.Second); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) {
	var q dockernet.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		fail(w, network.Errorf(network.Invalid, "invalid JSON: %w", err))
		return
	}
	switch {
	case q.Ingress:
		fail(w, network.Errorf(network.Invalid, "ingress networks belong to swarms, which usernet does not have"))
		return
	case q.IPAM != nil && q.IPAM.Driver != "" && q.IPAM.Driver != "default":
		fail(w, network.Errorf(network.NotFound, "IPAM driver %q is not there: usernet hands out addresses itself (default)", q.IPAM.Driver))
		return
	}
	n, warning, err := s.b.CreateNetwork(r.Context(), networkSpec(q))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(dockernet.CreateResponse{ID: n.ID, Warning: warning})
}

func (s *Server) version() system.VersionResponse {
	i := s.b.Info()
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "usernet"}, Version: i.Version, APIVersion: APIVersion, MinAPIVersion: MinAPIVersion,
		Os: "linux", Arch: runtime.GOARCH, GoVersion: runtime.Version(), KernelVersion: kernel(),
		Components: []system.ComponentVersion{{Name: "Engine", Version: i.Version, Details: map[string]string{
			"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion, "Os": "linux", "Arch": runtime.GOARCH, "GoVersion": runtime.Version(), "KernelVersion": kernel(),
		}}},
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (s *Server) systemInfo() system.Info {
	i := s.b.Info()
	name, _ := os.Hostname()
	return system.Info{
		ID: i.StateDir, Name: name, Containers: i.Containers, ContainersRunning: i.Running, ContainersStopped: i.Containers - i.Running,
		Driver: "usernet", Plugins: system.PluginsInfo{Network: []string{"bridge", "host", "null"}}, KernelVersion: kernel(), OSType: "linux",
		OperatingSystem: "usernet", Architecture: runtime.GOARCH, NCPU: runtime.NumCPU(), DockerRootDir: i.StateDir, ServerVersion: i.Version,
		SystemTime: time.Now().Format(time.RFC3339Nano), SecurityOptions: []string{"name=rootless"}, Warnings: i.Warnings, NGoroutines: runtime.NumGoroutine(), NFd: openDescriptors(),
	}
}

func (s *Server) listNetworks(r *http.Request) (any, error) {
	f, err := parseFilters(r, "name", "id", "driver", "scope", "type", "label", "dangling")
	if err != nil {
		return nil, err
	}
	containers := s.b.Containers()
	list := []dockernet.Network{}
	for _, n := range s.b.Networks() {
		if f.matchNetwork(n, containers) {
			list = append(list, dockerNetwork(n))
		}
	}
	return list, nil
}

// pruneNetworks removes the user-defined networks that nothing uses.
func (s *Server) pruneNetworks(r *http.Request) (any, error) {
	f, err := parseFilters(r, "until", "label", "label!")
	if err != nil {
		return nil, err
	}
	until, err := f.until()
	if err != nil {
		return nil, err
	}
	containers := s.b.Containers()
	report := struct{ NetworksDeleted []string }{}
	for _, n := range s.b.Networks() {
		used := n.ConfigOnly || n.Driver != network.DriverBridge || n.Name == network.BridgeName || inUse(n, containers)
		if used || !until.IsZero() && n.Created.After(until) || !f.matchLabels(n.Labels) {
			continue
		}
		if s.b.RemoveNetwork(r.Context(), n.ID) == nil { // somebody may have connected meanwhile
			report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
		}
	}
	return report, nil
}

func inUse(n *network.Network, containers []*network.Container) bool {
	return slices.ContainsFunc(containers, func(c *network.Container) bool {
		return c.Status != network.Exited && slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool { return e.NetworkID == n.ID })
	})
}

func (s *Server) listContainers(r *http.Request) (any, error) {
	f, err := parseFilters(r, "name", "id", "status", "label", "network", "exited", "publish", "expose",
		"before", "since", "ancestor", "volume", "health", "isolation", "is-task")
	if err != nil {
		return nil, err
	}
	all, _ := strconv.ParseBool(r.URL.Query().Get("all"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	containers, err := f.age(s.b.Containers(), s.b.Container)
	if err != nil {
		return nil, err
	}
	list := []container.Summary{}
	for _, c := range containers {
		if c.Status != network.Running && !all && limit <= 0 && len(f["status"]) == 0 && len(f["exited"]) == 0 || !f.matchContainer(c) {
			continue
		}
		if limit > 0 && len(list) == limit {
			break
		}
		bound, err := s.b.Published(c.ID)
		if err != nil {
			continue // it is gone
		}
		list = append(list, dockerSummary(c, bound))
	}
	slices.SortStableFunc(list, func(a, b container.Summary) int { return cmp.Compare(b.Created, a.Created) })
	return list, nil
}

// streamEvents sends events as they happen, each flushed at once.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilters(r, "type", "event", "container", "network", "label", "scope",
		"config", "daemon", "image", "node", "plugin", "secret", "service", "volume")
	if err != nil {
		fail(w, err)
		return
	}
	since, err1 := parseTime(r.URL.Query().Get("since"))
	until, err2 := parseTime(r.URL.Query().Get("until"))
	if err := cmp.Or(err1, err2); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	enc := json.NewEncoder(w)
	_ = s.b.Events(r.Context(), since, until, func(e Event) error {
		if !f.matchEvent(e) {
			return nil
		}
		err := enc.Encode(events.Message{
			Type: events.Type(e.Type), Action: events.Action(e.Action), Actor: events.Actor{ID: e.ID, Attributes: e.Attributes},
			Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
		})
		if err != nil {
			return err
		}
		return flush.Flush()
	})
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
