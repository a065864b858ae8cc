package netavark

import (
	"fmt"
	"maps"
	"net/netip"

	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/network"
)

// apiVersion is that of the plugin protocol.
const apiVersion = "1.0.0"

// podmanNetwork is a network as Podman describes it. What is not needed here is handed back as it came (rest).
type podmanNetwork struct {
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	Subnets     []subnet          `json:"subnets"`
	IPv6Enabled bool              `json:"ipv6_enabled"`
	Internal    bool              `json:"internal"`
	DNSServers  []string          `json:"network_dns_servers"`
	Options     map[string]string `json:"options"`
}

// subnet is one of a network's.
type subnet struct {
	Subnet     netip.Prefix `json:"subnet"`
	Gateway    netip.Addr   `json:"gateway,omitzero"`
	LeaseRange any          `json:"lease_range,omitempty"`
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

// spec is the daemon's network, where it has to be made.
func (n podmanNetwork) spec() (network.NetworkSpec, error) {
	options := maps.Clone(n.Options)
	delete(options, "network")
	s := network.NetworkSpec{Name: n.ours(), Internal: n.Internal, Attachable: true, Options: options, Labels: map[string]string{"usernet.podman": n.ID}}
	v6 := n.IPv6Enabled
	for _, sub := range n.Subnets {
		if sub.LeaseRange != nil {
			return s, fmt.Errorf("subnet %s: an address range is not possible here: make the network with `usernet network create --ip-range`, "+
				"then this one without a subnet", sub.Subnet)
		}
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

// subnetsOf are those of the daemon's network, which Podman shows and chooses no other address from.
func subnetsOf(n dockernet.Inspect) []subnet {
	var list []subnet
	for _, c := range n.IPAM.Config {
		list = append(list, subnet{Subnet: c.Subnet, Gateway: c.Gateway})
	}
	return list
}
