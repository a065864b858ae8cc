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

// dockerNetwork is a network as GET /networks shows it.
func dockerNetwork(n *network.Network) dockernet.Network {
	d := dockernet.Network{
		Name:       n.Name,
		ID:         n.ID,
		Created:    n.Created,
		Scope:      string(n.Scope),
		Driver:     shownDriver(n),
		EnableIPv4: n.EnableIPv4,
		EnableIPv6: n.EnableIPv6,
		Internal:   n.Internal,
		Attachable: n.Attachable,
		ConfigOnly: n.ConfigOnly,
		ConfigFrom: dockernet.ConfigReference{Network: n.ConfigFrom},
		Options:    nonNil(n.Options), Labels: nonNil(n.Labels),
		IPAM: dockernet.IPAM{Driver: "default", Options: n.IPAMOptions, Config: []dockernet.IPAMConfig{}},
	}
	for _, p := range n.Pools {
		d.IPAM.Config = append(d.IPAM.Config, dockernet.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
	}
	return d
}

// shownDriver is a network's driver as Docker shows it: a config-only network has none.
func shownDriver(n *network.Network) string {
	if n.ConfigOnly {
		return network.DriverNull
	}
	return n.Driver
}

func nonNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// dockerNetworkInspect adds the running containers, and with status how full the subnets are.
func dockerNetworkInspect(n *network.Network, containers []*network.Container, status bool) dockernet.Inspect {
	d := dockernet.Inspect{Network: dockerNetwork(n), Containers: map[string]dockernet.EndpointResource{}}
	for _, c := range containers {
		for _, e := range c.Endpoints {
			if e.NetworkID == n.ID && c.Status == network.Running {
				d.Containers[c.ID] = dockernet.EndpointResource{
					Name:        c.Name,
					EndpointID:  e.ID,
					MacAddress:  hardware(e.MAC),
					IPv4Address: e.IPv4,
					IPv6Address: e.IPv6,
				}
			}
		}
	}
	if !status || n.ConfigOnly || len(n.Pools) == 0 {
		return d
	}
	var used []netip.Addr
	for _, c := range containers {
		for _, e := range c.Endpoints {
			if e.NetworkID == n.ID {
				used = append(used, e.IPv4.Addr(), e.IPv6.Addr())
			}
		}
	}
	d.Status = &dockernet.Status{IPAM: dockernet.IPAMStatus{Subnets: dockernet.SubnetStatuses{}}}
	for _, p := range n.Pools {
		inUse, available := p.Usage(used)
		d.Status.IPAM.Subnets[p.Subnet] = dockernet.SubnetStatus{IPsInUse: inUse, DynamicIPsAvailable: available}
	}
	return d
}

func hardware(m network.MAC) dockernet.HardwareAddr {
	if m == (network.MAC{}) {
		return nil
	}
	return dockernet.HardwareAddr(m[:])
}

// dockerEndpoints are a container's endpoints by network.
func dockerEndpoints(c *network.Container) map[string]*dockernet.EndpointSettings {
	m := map[string]*dockernet.EndpointSettings{}
	for _, e := range c.Endpoints {
		s := &dockernet.EndpointSettings{
			Links:      e.Links,
			Aliases:    e.Aliases,
			DriverOpts: e.DriverOpts,
			GwPriority: e.GwPriority,
			NetworkID:  e.NetworkID,
			EndpointID: e.ID,
			Gateway:    e.Gateway4, IPv6Gateway: e.Gateway6, MacAddress: hardware(e.MAC), DNSNames: network.DNSNames(c, e),
		}
		if e.WantIPv4.IsValid() || e.WantIPv6.IsValid() || len(e.LinkLocal) > 0 {
			s.IPAMConfig = &dockernet.EndpointIPAMConfig{
				IPv4Address:  e.WantIPv4,
				IPv6Address:  e.WantIPv6,
				LinkLocalIPs: e.LinkLocal,
			}
		}
		if e.IPv4.IsValid() {
			s.IPAddress, s.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
		}
		if e.IPv6.IsValid() {
			s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
		}
		m[e.Network] = s
	}
	return m
}

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
		NetworkSettings: &container.NetworkSettingsSummary{Networks: dockerEndpoints(c)}, Mounts: []container.MountPoint{},
	}
	s.HostConfig.NetworkMode = c.NetworkMode
	published := map[network.PortProto]bool{}
	for _, b := range bound {
		published[network.PortProto{Port: b.Port, Proto: b.Proto}] = true
		s.Ports = append(s.Ports, container.PortSummary{IP: b.Host.Addr(), PrivatePort: b.Port, PublicPort: b.Host.Port(), Type: string(b.Proto)})
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
		Args:     []string{}, Mounts: []container.MountPoint{},
		State: &container.State{
			Status:    container.ContainerState(c.Status),
			Running:   c.Status == network.Running,
			Pid:       c.Pid,
			ExitCode:  c.ExitCode,
			Error:     c.Error,
			StartedAt: c.Started.Format(time.RFC3339Nano), FinishedAt: c.Finished.Format(time.RFC3339Nano),
		},
		Config: &container.Config{
			Hostname:   c.Hostname,
			Domainname: c.Domainname,
			User:       c.User,
			Tty:        c.TTY,
			OpenStdin:  c.OpenStdin,
			Env:        c.Env,
			Cmd:        c.Command,
			Image:      imageName, WorkingDir: c.WorkingDir, Labels: nonNil(c.Labels), ExposedPorts: dockernet.PortSet{},
		},
		HostConfig: &container.HostConfig{
			NetworkMode:     container.NetworkMode(c.NetworkMode),
			PortBindings:    dockernet.PortMap{},
			AutoRemove:      c.AutoRemove,
			PublishAllPorts: c.PublishAll,
			DNSOptions:      c.DNSOptions, DNSSearch: c.DNSSearch, ExtraHosts: c.ExtraHosts, Links: c.Links,
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
	return r
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
	for _, k := range []string{"EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"} {
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

// networkSpec reads Docker's request for a network.
func networkSpec(r dockernet.CreateRequest) network.NetworkSpec {
	s := network.NetworkSpec{
		Name:       r.Name,
		Driver:     r.Driver,
		Scope:      network.Scope(r.Scope),
		EnableIPv4: r.EnableIPv4,
		EnableIPv6: r.EnableIPv6,
		Internal:   r.Internal,
		Attachable: r.Attachable, ConfigOnly: r.ConfigOnly, Options: r.Options, Labels: r.Labels,
	}
	if r.ConfigFrom != nil {
		s.ConfigFrom = r.ConfigFrom.Network
	}
	if r.IPAM != nil {
		s.IPAMOptions = r.IPAM.Options
		for _, c := range r.IPAM.Config {
			s.Pools = append(s.Pools, network.Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
	}
	return s
}

// endpointSpec reads Docker's request for an endpoint.
func endpointSpec(s *dockernet.EndpointSettings) (network.EndpointSpec, error) {
	var e network.EndpointSpec
	if s == nil {
		return e, nil
	}
	e = network.EndpointSpec{Aliases: s.Aliases, DriverOpts: s.DriverOpts, GwPriority: s.GwPriority}
	if s.IPAMConfig != nil {
		e.IPv4, e.IPv6, e.LinkLocal = s.IPAMConfig.IPv4Address, s.IPAMConfig.IPv6Address, s.IPAMConfig.LinkLocalIPs
	}
	if len(s.MacAddress) > 0 {
		mac, err := network.ParseMAC(s.MacAddress.String())
		if err != nil {
			return e, err
		}
		e.MAC = mac
	}
	for _, l := range s.Links {
		link, err := network.ParseLink(l)
		if err != nil {
			return e, err
		}
		e.Links = append(e.Links, link.String())
	}
	return e, nil
}
