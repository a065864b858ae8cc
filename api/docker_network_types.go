package api

import (
	"net/netip"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

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
		Options:    nonNil(n.Options),
		Labels:     nonNil(n.Labels),
		IPAM:       dockernet.IPAM{Driver: "default", Options: n.IPAMOptions, Config: []dockernet.IPAMConfig{}},
	}
	for _, p := range n.Pools {
		d.IPAM.Config = append(d.IPAM.Config,
			dockernet.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
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

// networkSpec reads Docker's request for a network.
func networkSpec(r dockernet.CreateRequest) network.NetworkSpec {
	s := network.NetworkSpec{
		Name:       r.Name,
		Driver:     r.Driver,
		Scope:      network.Scope(r.Scope),
		EnableIPv4: r.EnableIPv4,
		EnableIPv6: r.EnableIPv6,
		Internal:   r.Internal,
		Attachable: r.Attachable,
		ConfigOnly: r.ConfigOnly,
		Options:    r.Options,
		Labels:     r.Labels,
	}
	if r.ConfigFrom != nil {
		s.ConfigFrom = r.ConfigFrom.Network
	}
	if r.IPAM != nil {
		s.IPAMOptions = r.IPAM.Options
		for _, c := range r.IPAM.Config {
			s.Pools = append(s.Pools,
				network.Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
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

// dockerEndpoints are a container's endpoints by network.
func dockerEndpoints(c *network.Container) map[string]*dockernet.EndpointSettings {
	m := map[string]*dockernet.EndpointSettings{}
	for _, e := range c.Endpoints {
		s := &dockernet.EndpointSettings{
			Links:       e.Links,
			Aliases:     e.Aliases,
			DriverOpts:  e.DriverOpts,
			GwPriority:  e.GwPriority,
			NetworkID:   e.NetworkID,
			EndpointID:  e.ID,
			Gateway:     e.Gateway4,
			IPv6Gateway: e.Gateway6,
			MacAddress:  hardware(e.MAC),
			DNSNames:    network.DNSNames(c, e),
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
