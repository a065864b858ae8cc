package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

// The model's records as Docker's types (module github.com/moby/moby/api), and Docker's requests as the model's.

// imageName stands where Docker shows an image: usernet has none.
const imageName = "-"

// dockerSummary is a line of GET /containers/json.
func dockerSummary(c *network.Container, bound []Published, health *network.Health) container.Summary {
	s := container.Summary{
		ID:              c.ID,
		Names:           []string{"/" + c.Name},
		Image:           imageName,
		Command:         strings.Join(c.Command, " "),
		Created:         c.Created.Unix(),
		Labels:          nonNil(c.Labels),
		State:           container.ContainerState(c.Status),
		Status:          StatusText(c) + healthText(health),
		Ports:           []container.PortSummary{},
		NetworkSettings: &container.NetworkSettingsSummary{Networks: dockerEndpoints(c)},
		Mounts:          dockerMounts(c),
	}
	s.HostConfig.NetworkMode = c.NetworkMode
	s.Health = &container.HealthSummary{Status: container.NoHealthcheck}
	if health != nil {
		s.Health = &container.HealthSummary{
			Status:        container.HealthStatus(health.Status),
			FailingStreak: health.FailingStreak,
		}
	}
	published := map[network.PortProto]bool{}
	for _, b := range bound {
		published[network.PortProto{Port: b.Port, Proto: b.Proto}] = true
		s.Ports = append(
			s.Ports,
			container.PortSummary{
				IP:          b.Host.Addr(),
				PrivatePort: b.Port,
				PublicPort:  b.Host.Port(),
				Type:        string(b.Proto),
			},
		)
	}
	for _, x := range c.Exposed {
		if !published[x] && c.Status == network.Running {
			s.Ports = append(s.Ports, container.PortSummary{PrivatePort: x.Port, Type: string(x.Proto)})
		}
	}
	return s
}

// StatusText is the STATUS column of ps.
func StatusText(c *network.Container) string {
	switch c.Status {
	case network.Running:
		return "Up " + units.HumanDuration(time.Since(c.Started))
	case network.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", c.ExitCode, units.HumanDuration(time.Since(c.Finished)))
	case network.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", c.ExitCode, units.HumanDuration(time.Since(c.Finished)))
	}
	return "Created"
}

// healthText is what the STATUS column adds.
func healthText(h *network.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == network.HealthStarting:
		return " (health: starting)"
	}
	return " (" + string(h.Status) + ")"
}

// addHealth adds c's health check, and what it says.
func addHealth(r *container.InspectResponse, c *network.Container, h *network.Health) {
	if c.Health.Command == "" {
		return
	}
	r.Config.Healthcheck = &container.HealthConfig{
		Test:          []string{"CMD-SHELL", c.Health.Command},
		Interval:      c.Health.Interval,
		Timeout:       c.Health.Timeout,
		StartPeriod:   c.Health.StartPeriod,
		StartInterval: c.Health.StartInterval,
		Retries:       c.Health.Retries,
	}
	if h == nil {
		return
	}
	r.State.Health = &container.Health{
		Status:        container.HealthStatus(h.Status),
		FailingStreak: h.FailingStreak,
		Log:           []*container.HealthcheckResult{},
	}
	for _, one := range h.Log {
		r.State.Health.Log = append(r.State.Health.Log, &container.HealthcheckResult{
			Start: one.Start, End: one.End, ExitCode: one.ExitCode, Output: one.Output,
		})
	}
}

// dockerInspect is GET /containers/ID/json.
func dockerInspect(c *network.Container, bound []Published, logPath string) container.InspectResponse {
	r := container.InspectResponse{
		ID:       c.ID,
		Created:  c.Created.Format(time.RFC3339Nano),
		Name:     "/" + c.Name,
		Image:    imageName,
		Driver:   "usernet",
		Platform: "linux",
		LogPath:  logPath,

		RestartCount: c.RestartCount,
		Args:         []string{},
		Mounts:       []container.MountPoint{},
		State: &container.State{
			Status:     container.ContainerState(c.Status),
			Running:    c.InLife(),
			Restarting: c.Status == network.Restarting,
			Pid:        c.Pid,
			ExitCode:   c.ExitCode,
			OOMKilled:  c.OOMKilled,
			Error:      c.Error,
			StartedAt:  c.Started.Format(time.RFC3339Nano),
			FinishedAt: c.Finished.Format(time.RFC3339Nano),
		},
		Config: &container.Config{
			Hostname:     c.Hostname,
			Domainname:   c.Domainname,
			User:         c.User,
			Tty:          c.TTY,
			OpenStdin:    c.OpenStdin,
			Env:          c.Env,
			Cmd:          c.Command,
			Image:        imageName,
			WorkingDir:   c.WorkingDir,
			Labels:       nonNil(c.Labels),
			ExposedPorts: dockernet.PortSet{},
			StopSignal:   c.StopSignal,
			StopTimeout:  c.StopTimeout,
		},
		HostConfig: &container.HostConfig{
			NetworkMode:  container.NetworkMode(c.NetworkMode),
			PortBindings: dockernet.PortMap{},
			AutoRemove:   c.AutoRemove,
			RestartPolicy: container.RestartPolicy{
				Name:              container.RestartPolicyMode(cmp.Or(c.Restart.Mode, network.RestartNo)),
				MaximumRetryCount: c.Restart.Max,
			},
			PublishAllPorts: c.PublishAll,
			DNSOptions:      c.DNSOptions,
			DNSSearch:       c.DNSSearch,
			ExtraHosts:      c.ExtraHosts,
			Links:           c.Links,
		},
		NetworkSettings: &container.NetworkSettings{
			SandboxID:  c.ID,
			SandboxKey: sandboxKey(c),
			Ports:      dockernet.PortMap{},
			Networks:   dockerEndpoints(c),
		},
	}
	if len(c.Command) > 0 {
		r.Path, r.Args = c.Command[0], c.Command[1:]
	}
	for _, s := range c.DNS {
		if a, err := netip.ParseAddr(s); err == nil {
			r.HostConfig.DNS = append(r.HostConfig.DNS, a)
		}
	}
	addPorts(&r, c, bound)
	addMounts(&r, c)
	addResources(&r, c)
	return r
}

// addResources adds c's limits.
func addResources(r *container.InspectResponse, c *network.Container) {
	h := r.HostConfig
	h.Memory, h.MemorySwap, h.NanoCPUs = c.Resources.Memory, c.Resources.MemorySwap, c.Resources.NanoCPUs
	if c.Resources.PidsLimit > 0 {
		h.PidsLimit = &c.Resources.PidsLimit
	}
}

// addMounts adds what c has of files besides its root.
func addMounts(r *container.InspectResponse, c *network.Container) {
	r.HostConfig.ReadonlyRootfs = c.ReadOnly
	if c.Init {
		r.HostConfig.Init = &c.Init
	}
	r.Mounts = dockerMounts(c)
	for _, m := range c.Mounts {
		if m.Tmpfs {
			if r.HostConfig.Tmpfs == nil {
				r.HostConfig.Tmpfs = map[string]string{}
			}
			r.HostConfig.Tmpfs[m.Target] = m.Options
			continue
		}
		bind := m.Source + ":" + m.Target
		if m.ReadOnly {
			bind += ":ro"
		}
		r.HostConfig.Binds = append(r.HostConfig.Binds, bind)
	}
}

// dockerMounts are c's volumes; Docker does not list what --tmpfs makes.
func dockerMounts(c *network.Container) []container.MountPoint {
	list := []container.MountPoint{}
	for _, m := range c.Mounts {
		if m.Tmpfs {
			continue
		}
		mode := ""
		if m.ReadOnly {
			mode = "ro"
		}
		list = append(list, container.MountPoint{
			Type: mount.TypeBind, Source: m.Source, Destination: m.Target, Mode: mode, RW: !m.ReadOnly,
			Propagation: mount.PropagationRPrivate,
		})
	}
	return list
}

// addPorts adds the ports that c exposes, and those that are published.
func addPorts(r *container.InspectResponse, c *network.Container, bound []Published) {
	for _, x := range c.Exposed {
		if p, ok := dockernet.PortFrom(x.Port, dockernet.IPProtocol(x.Proto)); ok {
			r.Config.ExposedPorts[p] = struct{}{}
			if c.Status == network.Running {
				r.NetworkSettings.Ports[p] = nil
			}
		}
	}
	for _, b := range bound {
		if p, ok := dockernet.PortFrom(b.Port, dockernet.IPProtocol(b.Proto)); ok {
			pb := dockernet.PortBinding{HostIP: b.Host.Addr(), HostPort: fmt.Sprint(b.Host.Port())}
			r.NetworkSettings.Ports[p] = append(r.NetworkSettings.Ports[p], pb)
			r.HostConfig.PortBindings[p] = append(r.HostConfig.PortBindings[p], pb)
		}
	}
}

// withBridgeFields adds what NetworkSettings had beside Networks before API 1.52: the endpoint on the default bridge.
// Scripts still ask for {{.NetworkSettings.IPAddress}}.
func withBridgeFields(r container.InspectResponse) (any, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	settings, ok := m["NetworkSettings"].(map[string]any)
	if !ok {
		return m, nil
	}
	bridge := r.NetworkSettings.Networks[network.BridgeName]
	if bridge == nil {
		bridge = &dockernet.EndpointSettings{}
	}
	if b, err = json.Marshal(bridge); err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	for k, v := range map[string]any{ // of what usernet's networks do not have
		"Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
		"SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil,
	} {
		settings[k] = v
	}
	for _, k := range []string{"EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
		"IPPrefixLen", "IPv6Gateway", "MacAddress"} {
		settings[k] = fields[k]
	}
	return m, nil
}

func sandboxKey(c *network.Container) string {
	switch {
	case c.NetNS != "":
		return c.NetNS
	case c.Pid != 0:
		return fmt.Sprintf("/proc/%d/ns/net", c.Pid)
	}
	return ""
}
