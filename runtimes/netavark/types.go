package netavark

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/client"
)

// apiVersion is that of the plugin protocol.
const apiVersion = "1.0.0"

// optionMTU is what usernet calls Podman's option mtu.
const optionMTU = "com.docker.network.driver.mtu"

// podmanNetwork is a network as Podman describes it. What is not needed here is handed back as it came (rest).
type podmanNetwork struct {
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	Subnets     []subnet          `json:"subnets"`
	IPv6Enabled bool              `json:"ipv6_enabled"`
	Internal    bool              `json:"internal"`
	DNSServers  []string          `json:"network_dns_servers"`
	Options     map[string]string `json:"options"`
	Routes      []json.RawMessage `json:"routes"`
	Interface   string            `json:"network_interface"`
	IPAM        struct {
		Driver string `json:"driver"`
	} `json:"ipam_options"`
}

// subnet is one of a network's.
type subnet struct {
	Subnet     netip.Prefix `json:"subnet"`
	Gateway    netip.Addr   `json:"gateway,omitzero"`
	LeaseRange *leaseRange  `json:"lease_range,omitempty"`
}

// leaseRange is where Podman chooses addresses of containers from. It chooses them itself, from its own list of those
// in use.
type leaseRange struct {
	Start netip.Addr `json:"start_ip,omitzero"`
	End   netip.Addr `json:"end_ip,omitzero"`
}

// request is what setup and teardown read.
type request struct {
	ContainerID   string        `json:"container_id"`
	ContainerName string        `json:"container_name"`
	Network       podmanNetwork `json:"network"`
	Options       struct {
		Aliases       []string     `json:"aliases"`
		InterfaceName string       `json:"interface_name"`
		StaticIPs     []netip.Addr `json:"static_ips"`
		StaticMAC     string       `json:"static_mac"`
	} `json:"network_options"`
}

// status is setup's answer.
type status struct {
	DNSSearchDomains []string                `json:"dns_search_domains"`
	DNSServerIPs     []string                `json:"dns_server_ips"`
	Interfaces       map[string]netInterface `json:"interfaces"`
}

type netInterface struct {
	MAC     string       `json:"mac_address"`
	Subnets []netAddress `json:"subnets"`
}

type netAddress struct {
	Gateway netip.Addr   `json:"gateway,omitzero"`
	IPNet   netip.Prefix `json:"ipnet"`
}

// ours is the name of the daemon's network.
func (n podmanNetwork) ours() string {
	if name := n.Options["network"]; name != "" {
		return name
	}
	return n.Name
}

// check refuses what would be without effect.
func (n podmanNetwork) check() error {
	switch {
	case len(n.Routes) > 0:
		return errors.New("--route: networks of usernet have no routes besides those to their subnets and gateways")
	case n.Interface != "":
		return fmt.Errorf("--interface-name %s: there is no interface on the host", n.Interface)
	case n.IPAM.Driver == "dhcp":
		return errors.New("--ipam-driver dhcp: usernet gives the addresses (none), or Podman does (host-local)")
	}
	return nil
}

// fits says why a network of the daemon's that is there is not the one that Podman describes.
func (n podmanNetwork) fits(have dockernet.Inspect) error {
	if !client.HasInterfaces(have) {
		return fmt.Errorf("network %s: nothing can be attached to it: name another", n.ours())
	}
	if n.Internal && !have.Internal {
		return fmt.Errorf("usernet has a network %s already, and it is not internal: choose another name, or remove it "+
			"with `usernet network rm %[1]s`", n.ours())
	}
	for _, sub := range n.Subnets {
		if !slices.ContainsFunc(have.IPAM.Config, func(s dockernet.IPAMConfig) bool { return s.Subnet == sub.Subnet }) {
			return fmt.Errorf(
				"usernet has a network %s already, and %s is none of its subnets: choose another name, or no subnet",
				n.ours(),
				sub.Subnet,
			)
		}
	}
	return nil
}

// spec is the daemon's network, where it has to be made.
func (n podmanNetwork) spec() (network.NetworkSpec, error) {
	options := maps.Clone(n.Options)
	delete(options, "network")
	if mtu, ok := options["mtu"]; ok { // as of Podman's other drivers
		delete(options, "mtu")
		options[optionMTU] = mtu
	}
	s := network.NetworkSpec{
		Name:       n.ours(),
		Internal:   n.Internal,
		Attachable: true,
		Options:    options,
		Labels:     map[string]string{"usernet.podman": n.ID},
	}
	v6 := n.IPv6Enabled
	for _, sub := range n.Subnets {
		v6 = v6 || sub.Subnet.Addr().Is6()
		s.Pools = append(s.Pools, network.Pool{Subnet: sub.Subnet, Gateway: sub.Gateway})
	}
	s.EnableIPv6 = &v6
	return s, nil
}

// endpoint is what a container asks for.
func (q request) endpoint() (network.EndpointSpec, error) {
	e := network.EndpointSpec{Interface: q.Options.InterfaceName, Aliases: q.Options.Aliases}
	for _, ip := range q.Options.StaticIPs {
		have := &e.IPv4
		if ip.Is6() {
			have = &e.IPv6
		}
		if have.IsValid() {
			return e, fmt.Errorf("static addresses %s and %s: an interface has one of each family", *have, ip)
		}
		*have = ip
	}
	if q.Options.StaticMAC != "" {
		var err error
		if e.MAC, err = network.ParseMAC(q.Options.StaticMAC); err != nil {
			return e, err
		}
	}
	return e, nil
}

// subnetsOf are those of the daemon's network. Podman is to choose addresses from the upper half of each, unless the
// user has said otherwise, since the daemon gives its own containers the lowest that are free.
func subnetsOf(n dockernet.Inspect, asked []subnet) []subnet {
	var list []subnet
	for _, c := range n.IPAM.Config {
		s := subnet{Subnet: c.Subnet, Gateway: c.Gateway, LeaseRange: upperHalf(c.Subnet)}
		for _, a := range asked {
			if a.Subnet == s.Subnet && a.LeaseRange != nil {
				s.LeaseRange = a.LeaseRange
			}
		}
		list = append(list, s)
	}
	return list
}

// upperHalf are a subnet's addresses from the middle on, but for the last one (an IPv4 broadcast address); nil where
// that is nothing.
func upperHalf(p netip.Prefix) *leaseRange {
	bits := p.Addr().BitLen()
	if bits-p.Bits() < 3 {
		return nil
	}
	first, last := p.Masked().Addr().AsSlice(), p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < bits; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	last[len(last)-1] &^= 1
	first[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	var r leaseRange
	r.Start, _ = netip.AddrFromSlice(first) // as long as an address is
	r.End, _ = netip.AddrFromSlice(last)
	return &r
}
