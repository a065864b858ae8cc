package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

// The model's records as Docker's types (module github.com/moby/moby/api), and Docker's requests as the model's.

// imageName stands where Docker shows an image: usernet has none.
const imageName = "-"

// dockerSummary is a line of GET /containers/json.
func dockerSummary(c *network.Container, bound []Published) container.Summary {
	s := container.Summary{
		ID:              c.ID,
		Names:           []string{"/" + c.Name},
		Image:           imageName,
		Command:         strings.Join(c.Command, " "),
		Created:         c.Created.Unix(),
		Labels:          nonNil(c.Labels),
		State:           container.ContainerState(c.Status),
		Status:          StatusText(c),
		Ports:           []container.PortSummary{},
		NetworkSettings: &container.NetworkSettingsSummary{Networks: dockerEndpoints(c)},
		Mounts:          []container.MountPoint{},
	}
	s.HostConfig.NetworkMode = c.NetworkMode
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
	case network.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", c.ExitCode, units.HumanDuration(time.Since(c.Finished)))
	}
	return "Created"
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
		Args:     []string{},
		Mounts:   []container.MountPoint{},
		State: &container.State{
			Status:     container.ContainerState(c.Status),
			Running:    c.Status == network.Running,
			Pid:        c.Pid,
			ExitCode:   c.ExitCode,
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
		},
		HostConfig: &container.HostConfig{
			NetworkMode:     container.NetworkMode(c.NetworkMode),
			PortBindings:    dockernet.PortMap{},
			AutoRemove:      c.AutoRemove,
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
	return r
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
