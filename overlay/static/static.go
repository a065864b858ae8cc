// Package static connects networks to VXLAN devices, Open vSwitch and switches of others, at addresses that do not
// change: there is no cluster, no table, and nothing that tells where an endpoint is. A network names its number and
// its peers; MACs behind them are learned, and frames to groups and to unknown MACs go to each (head-end replication).
// Package fabric carries the frames, so what it checks and bounds holds here too.
//
// A Set has one fabric, which is one UDP port, for all networks with the same encapsulation and port. It is opened for
// the first of them and closed with the last.
package static

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
)

// Set is the networks of a daemon that have static peers. Make it with New. Its methods may be called at the same time.
type Set struct {
	log *slog.Logger

	mu      sync.Mutex // guards the rest
	ports   map[port]*shared
	members map[string]*member // by the network's id
}

// port is what networks share a fabric by.
type port struct {
	encap  fabric.Encap
	number uint16
}

// shared is a fabric, with the number of its networks.
type shared struct {
	fabric   *fabric.Fabric
	networks int
}

// member is one network's link. The engine closes it with the network.
type member struct {
	*fabric.Link
	set   *Set
	id    string
	at    port
	trunk *engine.Trunk
	leave func() // ends Follow; nil: there is nothing to end
	once  sync.Once
}

// Config is a network with static peers.
type Config struct {
	ID, Name string
	Encap    fabric.Encap
	// Port is the UDP port that frames come in at.
	Port uint16
	// VNI is the network's number on the wire.
	VNI uint32
	// Peers have ports; 0: Port.
	Peers []netip.AddrPort
	// Gateways and Subnets are those of the network.
	Gateways []netip.Addr
	Subnets  []netip.Prefix
	// Follow, where it is not nil, is given what a control plane tells of more peers with, until leave is called, which
	// does not wait for it.
	Follow func(tell Tell) (leave func())
}

// Tell says which more peers frames to all go to and what is behind which peer, in the place of what was said before
// (fabric.Link.SetForeign). A port of 0 is that of the network.
type Tell func(peers []netip.AddrPort, entries []fabric.ForeignEntry) error

// New returns an empty Set.
func New(log *slog.Logger) *Set {
	return &Set{log: log, ports: map[port]*shared{}, members: map[string]*member{}}
}

// MTU is what is left for packets of containers on a path of 1500 bytes to these peers, which is Ethernet's. An invalid
// one is none.
func MTU(peers ...netip.AddrPort) int {
	const ethernet = 1500
	for _, p := range peers {
		if p.Addr().Unmap().Is6() {
			return fabric.InnerMTU(ethernet, true, false)
		}
	}
	return fabric.InnerMTU(ethernet, false, false)
}

// Join connects a network that runs to its peers, until the engine closes it.
func (s *Set) Join(cfg Config, e *engine.Network) error {
	at := port{cfg.Encap, cfg.Port}
	f, err := s.open(at)
	if err != nil {
		return fmt.Errorf("network %s: %w", cfg.Name, err)
	}
	link, err := f.Open(fabric.NetworkConfig{
		Name:       cfg.Name,
		VNI:        cfg.VNI,
		MTU:        e.MTU(),
		GatewayMAC: e.GatewayMAC(),
		Gateways:   cfg.Gateways,
		Subnets:    cfg.Subnets,
		Foreign:    withPorts(cfg.Peers, cfg.Port),
		Told:       cfg.Follow != nil,
	})
	if err != nil {
		return errors.Join(err, s.release(at))
	}
	m := &member{Link: link, set: s, id: cfg.ID, at: at}
	if m.trunk, err = e.AttachTrunk(link.PortConfig(), m); err != nil {
		return errors.Join(err, m.Close())
	}
	if cfg.Follow != nil {
		m.follow(cfg.Follow)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[cfg.ID] = m
	return nil
}

// follow has a control plane tell of the network's peers.
func (m *member) follow(f func(Tell) func()) {
	leave := f(func(peers []netip.AddrPort, entries []fabric.ForeignEntry) error {
		for i := range entries {
			entries[i].Peer = withPort(entries[i].Peer, m.at.number)
		}
		macs, err := m.Link.SetForeign(withPorts(peers, m.at.number), entries)
		m.trunk.SetStatic(macs)
		return err
	})
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.leave = leave
}

func withPorts(peers []netip.AddrPort, number uint16) []netip.AddrPort {
	list := make([]netip.AddrPort, 0, len(peers))
	for _, p := range peers {
		list = append(list, withPort(p, number))
	}
	return list
}

func withPort(p netip.AddrPort, number uint16) netip.AddrPort {
	if p.Port() == 0 {
		p = netip.AddrPortFrom(p.Addr(), number)
	}
	return p
}

// open returns the fabric of a port, for one network more.
func (s *Set) open(at port) (*fabric.Fabric, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[at]; p != nil {
		p.networks++
		return p.fabric, nil
	}
	f, err := fabric.New(fabric.Config{
		Host:   overlay.NewHostID(), // nobody is told
		Listen: netip.AddrPortFrom(netip.Addr{}, at.number),
		Encap:  at.encap,
		Logger: s.log,
	})
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("frames of %v come in at UDP port %d: %w: give another one with -o usernet.port=, not below "+
			"net.ipv4.ip_unprivileged_port_start", at.encap, at.number, err)
	}
	if err != nil {
		return nil, fmt.Errorf(
			"frames of %v come in at UDP port %d: %w; where another program has it, such as the kernel for a VXLAN "+
				"device, give another one with -o usernet.port=", at.encap, at.number, err)
	}
	s.ports[at] = &shared{fabric: f, networks: 1}
	return f, nil
}

// Probe says whether frames can come in at a port: networks of the set have it, or nobody.
func (s *Set) Probe(encap fabric.Encap, number uint16) error {
	at := port{encap, number}
	if _, err := s.open(at); err != nil {
		return err
	}
	return s.release(at)
}

// release ends the use of a port by one network.
func (s *Set) release(at port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[at]
	if p.networks--; p.networks > 0 {
		return nil
	}
	delete(s.ports, at)
	return p.fabric.Close()
}

// Close ends the network's part of the fabric.
func (m *member) Close() error {
	var err error
	m.once.Do(func() {
		m.set.mu.Lock()
		leave := m.leave
		m.set.mu.Unlock()
		if leave != nil {
			leave()
		}
		err = errors.Join(m.Link.Close(), m.set.release(m.at))
		m.set.mu.Lock()
		defer m.set.mu.Unlock()
		if m.set.members[m.id] == m {
			delete(m.set.members, m.id)
		}
	})
	return err
}

// Drops are the counts of what a network's link dropped, and of what came to its port for no network, by reason; nil
// for a network that is not of the set.
func (s *Set) Drops(id string) map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[id]
	if m == nil {
		return nil
	}
	drops := map[string]uint64{}
	for reason, n := range m.Link.Drops() {
		drops[fmt.Sprint(reason)] += n
	}
	for reason, n := range s.ports[m.at].fabric.Drops() {
		drops[fmt.Sprint(reason)] += n
	}
	return drops
}
