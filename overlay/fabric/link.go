package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// NetworkConfig is a network as the fabric has to know it.
type NetworkConfig struct {
	Name string // for people
	VNI  uint32 // 1 to MaxVNI; not that of another open network
	// Sealed has all frames go through WireGuard, and plain ones dropped.
	Sealed bool
	// MTU is that of the network's links, in bytes of layer 3; 0: 1500.
	MTU int
	// GatewayMAC and Gateways are those of the gateway, which each host has itself: no frame from or to them crosses.
	GatewayMAC net.HardwareAddr
	Gateways   []netip.Addr
	// Subnets are those of the network: a packet to all is to the last address of one. Nil: to one that ends in 255.
	Subnets []netip.Prefix
	// Foreign are VXLAN devices of others, with their port; 0: the encapsulation's. MACs behind them are learned, and
	// frames to all go to them. A sealed network has none.
	Foreign []netip.AddrPort
	// Routed makes the link a router among others; nil: it is a bridge. A routed network is plain, and has no Foreign:
	// Link.SetRoutes says who the others are.
	Routed *Routed
	// Told says that SetForeign will be called: there may be foreign peers besides Foreign.
	Told bool
}

// Entry is an endpoint on another host.
type Entry struct {
	MAC   overlay.MAC
	Addrs []netip.Addr
	Host  overlay.HostID
}

// Link is a network's device for a switch port with the role Fabric. It is an engine.Link. Its methods may be called by
// many goroutines at once.
type Link struct {
	f    *Fabric
	cfg  NetworkConfig
	mac  overlay.MAC // the port's own, which frames have that the link makes itself
	gate overlay.MAC // of the gateway; zero: none
	// overhead is Encap.overhead of the fabric's.
	overhead int

	port  atomic.Pointer[vswitch.Port] // nil until Serve, and after Stop
	stop  chan struct{}
	once  sync.Once
	drops [numReasons]atomic.Uint64

	table   atomic.Pointer[table]
	via     atomic.Pointer[via] // subnets behind hosts; nil: none
	held    heldSYNs
	holds   atomic.Bool // SYNs are held back
	learned learnedMACs

	limits struct { // of what frames of containers make the link do
		sync.Mutex
		flood rate.Bucket // copies of frames to groups
		icmp  rate.Bucket // ICMP errors
	}
}

// table is what the entries say. It never changes once it is stored.
type table struct {
	byMAC   map[overlay.MAC]*place
	byAddr  map[netip.Addr]*place
	members []*peer // the hosts that frames to groups go to
	foreign []*peer // likewise the foreign peers; of a routed network those that routes lead to
	behind  []*peer // foreign peers that entries name and that get no frames to groups
	routes  routes
}

// place is an Entry, with the host's peer.
type place struct {
	Entry
	peer *peer
}

// has says whether an address is the endpoint's.
func (e *place) has(a netip.Addr) bool { return slices.Contains(e.Addrs, a) }

// What a network may cause: as many copies of frames to groups as a switch port (1000 multicast frames a second to 50
// hosts), and ICMP errors as Linux limits them (net.ipv4.icmp_msgs_per_sec, icmp_msgs_burst).
const (
	floodRate, floodBurst = 50000, 50000
	icmpRate, icmpBurst   = 1000, 50
)

// Open starts a network. The link ends with its Close, or the fabric's.
func (f *Fabric) Open(cfg NetworkConfig) (*Link, error) {
	fail := func(format string, args ...any) (*Link, error) {
		return nil, fmt.Errorf("network %s between hosts: %w", cfg.Name, fmt.Errorf(format, args...))
	}
	switch {
	case cfg.VNI == 0 || cfg.VNI > MaxVNI:
		return fail("VNI %d is not from 1 to %d", cfg.VNI, MaxVNI)
	case cfg.Sealed && (len(cfg.Foreign) > 0 || cfg.Told):
		return fail("it is sealed, and foreign peers take plain VXLAN only: make it with -o encrypted=false")
	case cfg.Routed != nil && (cfg.Sealed || len(cfg.Foreign) > 0 || cfg.Told):
		return fail("it is routed, and so neither sealed nor with foreign peers")
	case cfg.Routed == nil && f.cfg.Encap == BareIP:
		return fail("%v have no Ethernet header, which only a routed network does without", f.cfg.Encap)
	case len(cfg.Foreign) > maxForeign:
		return fail("%d foreign peers, and there may be %d", len(cfg.Foreign), maxForeign)
	case len(cfg.GatewayMAC) != 0 && len(cfg.GatewayMAC) != 6:
		return fail("the gateway's MAC is %v", cfg.GatewayMAC)
	}
	if cfg.MTU <= 0 {
		cfg.MTU = defaultIPMTU
	}
	l := &Link{
		f:   f,
		cfg: cfg,
		mac: overlay.MAC{
			0x0e,
			0x75,
			0x6e,
			byte(cfg.VNI >> 16),
			byte(cfg.VNI >> 8),
			byte(cfg.VNI),
		}, // locally administered
		overhead: f.cfg.Encap.overhead(),
		stop:     make(chan struct{}),
	}
	copy(l.gate[:], cfg.GatewayMAC)
	l.held.init()
	l.limits.flood.PerSecond, l.limits.flood.Burst = floodRate, floodBurst
	l.limits.icmp.PerSecond, l.limits.icmp.Burst = icmpRate, icmpBurst

	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.state.Load()
	switch {
	case f.closed.Load():
		return nil, ErrClosed
	case old.byVNI[cfg.VNI] != nil:
		return fail("VNI %d is in use by network %s", cfg.VNI, old.byVNI[cfg.VNI].cfg.Name)
	case len(old.byVNI) >= maxNetworks:
		return fail("there are %d networks", maxNetworks)
	}
	t := &table{}
	for _, a := range cfg.Foreign {
		p, err := f.foreignPeer(a)
		if err != nil {
			return fail("%w", err)
		}
		t.foreign = append(t.foreign, p)
	}
	l.table.Store(t)
	f.setLinks(func(byVNI map[uint32]*Link) { byVNI[cfg.VNI] = l })
	return l, nil
}

// setLinks changes which networks there are, and with them which foreign peers. The caller holds mu.
func (f *Fabric) setLinks(edit func(map[uint32]*Link)) {
	byVNI := make(map[uint32]*Link, len(f.state.Load().byVNI)+1)
	for vni, l := range f.state.Load().byVNI {
		byVNI[vni] = l
	}
	edit(byVNI)
	byIP := map[netip.Addr]*peer{}
	for _, l := range byVNI {
		t := l.table.Load()
		for _, p := range slices.Concat(t.foreign, t.behind) {
			byIP[p.dest.Load().addr.Addr()] = p
		}
	}
	f.change(func(s *state) { s.byVNI, s.byIP = byVNI, byIP })
}

// foreignPeer is the peer at an address that a network names. The caller holds mu.
func (f *Fabric) foreignPeer(a netip.AddrPort) (*peer, error) {
	if a = plainAddr(a); a.Port() == 0 {
		a = netip.AddrPortFrom(a.Addr(), f.cfg.Encap.Port())
	}
	if !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || f.socketFor(a.Addr()) == nil {
		return nil, fmt.Errorf("foreign peer %v: no such address can be reached", a)
	}
	if p := f.state.Load().byIP[a.Addr()]; p != nil {
		if d := p.dest.Load(); d.addr != a {
			return nil, fmt.Errorf(
				"foreign peer %v is known with port %d already, and a peer has one",
				a,
				d.addr.Port(),
			)
		}
		return p, nil
	}
	p := newPeer(f, "")
	p.setAddr(a, netip.Addr{})
	return p, nil
}

// PortConfig is the configuration of the switch port that the link is to be the device of.
func (l *Link) PortConfig() vswitch.PortConfig {
	cfg := vswitch.PortConfig{
		Name:       "fabric",
		MAC:        l.mac[:],
		Role:       vswitch.Fabric,
		FloodGroup: floodGroup,
	}
	if len(l.cfg.Foreign) > 0 || l.cfg.Told {
		cfg.LearnLimit, cfg.Age = maxLearned, learnedAge
	}
	return cfg
}

// floodGroup is that of fabric ports: what came from one tunnel is not for another (RFC 4762, section 4.4).
const floodGroup = 1

// SetEntries says which endpoints other hosts have, in the place of what was said before, and returns their MACs, for
// vswitch.Switch.SetStatic. Entries of this host are passed over. Frames to groups go to all hosts with an entry, and
// to members.
func (l *Link) SetEntries(entries []Entry, members ...overlay.HostID) ([]net.HardwareAddr, error) {
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("network %s: %d endpoints, and there may be %d", l.cfg.Name, len(entries), maxEntries)
	}
	f := l.f
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &table{
		byMAC:   make(map[overlay.MAC]*place, len(entries)),
		byAddr:  make(map[netip.Addr]*place, len(entries)),
		foreign: l.table.Load().foreign,
	}
	seen := map[*peer]bool{}
	member := func(h overlay.HostID) *peer {
		p := f.hostPeer(h)
		if !seen[p] {
			seen[p] = true
			t.members = append(t.members, p)
		}
		return p
	}
	var macs []net.HardwareAddr
	for _, e := range entries {
		if e.Host == f.cfg.Host || e.Host == "" || e.MAC[0]&1 != 0 || e.MAC == l.gate || t.byMAC[e.MAC] != nil {
			continue
		}
		at := &place{Entry: e, peer: member(e.Host)}
		t.byMAC[e.MAC] = at
		for _, a := range e.Addrs {
			if t.byAddr[a] == nil {
				t.byAddr[a] = at
			}
		}
		macs = append(macs, slices.Clone(e.MAC[:]))
	}
	for _, h := range members {
		if h != f.cfg.Host && h != "" {
			member(h)
		}
	}
	l.table.Store(t)
	return macs, nil
}

// Drops are the counts of what the link dropped, by reason.
func (l *Link) Drops() map[Reason]uint64 { return counts(&l.drops) }

func (l *Link) drop(r Reason) { l.drops[r].Add(1) }

// Serve has the port receive what comes for the network, until the link is stopped or closed (net.ErrClosed).
func (l *Link) Serve(p *vswitch.Port) error {
	select {
	case <-l.stop:
	default:
		l.port.Store(p)
		<-l.stop
		l.port.Store(nil)
	}
	return net.ErrClosed
}

// Stop ends Serve for good, and returns when the port has what was received. Frames can still be written. Serve's port
// must not call it.
func (l *Link) Stop() {
	l.once.Do(func() { close(l.stop) })
	l.port.Store(nil)
	l.f.delivering.Lock()
	defer l.f.delivering.Unlock() // locked to wait, not to hold
}

// Close ends the network on this host. Closing again does nothing.
func (l *Link) Close() error {
	l.Stop()
	l.held.close()
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.f.state.Load().byVNI[l.cfg.VNI] == l {
		l.f.setLinks(func(byVNI map[uint32]*Link) { delete(byVNI, l.cfg.VNI) })
	}
	return nil
}
