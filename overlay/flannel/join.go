package flannel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
)

// ethernetMTU is a path's where nothing is known of this host's interface, in bytes.
const ethernetMTU = 1500

// Network is a network of containers, as the node has to know it.
type Network struct {
	ID, Name string
	// Subnet is this host's, of which containers have their addresses.
	Subnet netip.Prefix
	// Gateways are those of the network.
	Gateways []netip.Addr
}

// member is the network that runs. The engine closes it with the network.
type member struct {
	*fabric.Link
	node   *Node
	fabric *fabric.Fabric
	id     string
	once   sync.Once
}

// listen opens the port that packets come in at.
func (n *Node) listen(c Config) (*fabric.Fabric, error) {
	f, err := fabric.New(fabric.Config{
		Host:   overlay.NewHostID(), // nobody is told
		Listen: netip.AddrPortFrom(netip.Addr{}, c.Port),
		Encap:  c.encap(),
		Logger: n.log,
	})
	if err != nil {
		return nil, fmt.Errorf("packets of flannel's nodes come in at UDP port %d: %w; where another program has it, "+
			"such as a flanneld on this host, there can be no second node", c.Port, err)
	}
	return f, nil
}

// Probe says whether packets can come in: the node's network has the port, or nobody.
func (n *Node) Probe(c Config) error {
	n.mu.Lock()
	running := n.mu.member != nil
	n.mu.Unlock()
	if running {
		return nil
	}
	f, err := n.listen(c)
	if err != nil {
		return err
	}
	return f.Close()
}

// Join connects a network that runs to the other nodes, until the engine closes it.
func (n *Node) Join(network Network, e *engine.Network) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.mu.config
	switch {
	case n.mu.member != nil:
		return errors.New("a host has one lease of flannel's, and another network has it")
	case n.mu.own.subnet != network.Subnet:
		return fmt.Errorf("network %s was made for the lease of %v, and this host has %v now: remove it and make it anew",
			network.Name, network.Subnet, n.mu.own.subnet)
	}
	f, err := n.listen(c)
	if err != nil {
		return err
	}
	vni := c.VNI
	if c.Backend == backendUDP {
		vni = defaultVNI // it is not on the wire
	}
	link, err := f.Open(fabric.NetworkConfig{
		Name:       network.Name,
		VNI:        vni,
		MTU:        e.MTU(),
		GatewayMAC: e.GatewayMAC(),
		Gateways:   network.Gateways,
		Routed: &fabric.Routed{
			MAC:   n.mu.mac,
			Local: network.Subnet,
			Find: func(a netip.Addr) (overlay.MAC, bool) {
				mac, ok := e.Find(a)
				return mac, ok
			},
		},
	})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	m := &member{Link: link, node: n, fabric: f, id: network.ID}
	if _, err := e.AttachTrunk(link.PortConfig(), m); err != nil {
		return errors.Join(err, link.Close(), f.Close())
	}
	n.mu.member = m
	n.apply()
	return nil
}

// Close ends the network's part.
func (m *member) Close() error {
	var err error
	m.once.Do(func() {
		m.node.mu.Lock()
		if m.node.mu.member == m {
			m.node.mu.member = nil
		}
		m.node.mu.Unlock()
		err = errors.Join(m.Link.Close(), m.fabric.Close())
	})
	return err
}

// MTU is how large packets of containers are, in bytes: what the configuration says, or what this host's interface
// leaves.
func (n *Node) MTU() int {
	n.mu.Lock()
	c, public := n.mu.config, n.mu.own.public
	n.mu.Unlock()
	if c.MTU != 0 {
		return c.MTU
	}
	return c.encap().InnerMTU(interfaceMTU(public), false)
}

// interfaceMTU is that of the interface that has an address.
func interfaceMTU(a netip.Addr) int {
	list, err := net.Interfaces()
	if err != nil {
		return ethernetMTU
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a {
				return i.MTU
			}
		}
	}
	return ethernetMTU
}

// Status is the node as `network inspect --verbose` shows it.
type Status struct {
	Subnet  netip.Prefix
	Leased  bool // the store has the lease, and it is renewed
	Backend string
	Nodes   map[string]string // subnets of the others, with their addresses
}

// Status describes the node for the network with an id; nil: it is not the node's.
func (n *Node) Status(id string) *Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.member == nil || n.mu.member.id != id {
		return nil
	}
	s := &Status{Subnet: n.mu.own.subnet, Leased: n.mu.held, Backend: n.mu.config.Backend, Nodes: map[string]string{}}
	for _, l := range n.others() {
		s.Nodes[l.subnet.String()] = l.public.String()
	}
	return s
}

// Drops are the counts of what the network's link dropped, and of what came to its port for no network, by reason; nil
// for a network that is not the node's.
func (n *Node) Drops(id string) map[string]uint64 {
	n.mu.Lock()
	m := n.mu.member
	n.mu.Unlock()
	if m == nil || m.id != id {
		return nil
	}
	drops := map[string]uint64{}
	for reason, count := range m.Link.Drops() {
		drops[fmt.Sprint(reason)] += count
	}
	for reason, count := range m.fabric.Drops() {
		drops[fmt.Sprint(reason)] += count
	}
	return drops
}
