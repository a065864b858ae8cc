package fabric

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// Peer is another host as the cluster's table has it.
type Peer struct {
	Host  overlay.HostID
	Addrs []netip.AddrPort // where it is reached, the best first
	TCP   []netip.AddrPort // where it takes connections that carry frames; none: nowhere
	Key   overlay.Key      // zero: it takes part in no sealed network
	// Sockets says that it takes connections of containers where it takes those that carry frames.
	Sockets bool
	// PartialChecksums says that it takes frames with a checksum that was left to be done.
	PartialChecksums bool
	// Seen are addresses at which others have seen it (PeerState.Addr of theirs): a way through a NAT may lead there.
	Seen []netip.AddrPort
}

// PeerState is what is known of a peer.
type PeerState struct {
	Host overlay.HostID // "" for a foreign peer
	Addr netip.AddrPort // where frames go now; invalid: nowhere
	Path Path
	// Relay is the host that passes frames on, where Path is Relayed.
	Relay overlay.HostID
	// Alive says that it answered lately; Answered is when, zero: never. Foreign peers are not asked.
	Alive    bool
	Answered time.Time
	RTT      time.Duration  // of the last answer
	Ahead    time.Duration  // how much this host's clock is ahead of the peer's; 0: not at all, or unknown
	SeenAs   netip.AddrPort // the address that it sees this host at
	Sealed   bool           // its key counts
	// PathMTU is the largest IP packet that gets there, in bytes; of a relayed peer, that gets to the relay.
	PathMTU             int
	FramesIn, BytesIn   uint64 // frames of networks, with their Ethernet headers
	FramesOut, BytesOut uint64
}

// peer is a host, or a foreign VXLAN device.
type peer struct {
	f       *Fabric
	host    overlay.HostID // "": foreign
	foreign bool
	dest    atomic.Pointer[destination] // nil: no address is known
	// formerly is where frames went before: the other end may send from there for some seconds still.
	formerly atomic.Pointer[destination]
	heardAt  atomic.Pointer[netip.AddrPort] // where WireGuard heard it last; nil: nowhere yet
	pathMTU  atomic.Int32                   // of the outer IP packet, in bytes

	key        atomic.Pointer[overlay.Key]    // that counts; nil: none, so nothing sealed goes to it
	inside     atomic.Pointer[netip.Addr]     // its address inside the tunnel; nil as key
	candidates atomic.Pointer[[]*destination] // all its addresses
	heard      atomic.Int64                   // when something sealed came last, in Unix nanoseconds; 0: never
	stage      struct {
		sync.Mutex
		rate.Bucket
	}
	via      atomic.Pointer[peer]             // the relay that it is reached through; nil: directly
	tcp      atomic.Pointer[[]netip.AddrPort] // where it takes connections
	carrier  atomic.Pointer[carrier]          // the connection that carries its frames; nil: they go by UDP
	dialed   atomic.Pointer[carrier]          // the one that this host has made last
	held     heldHandshake
	udpTried atomic.Int64 // when a handshake by UDP was begun last, while frames went by TCP, in Unix nanoseconds
	// udpAnswered is when an answer to a handshake came from one of its addresses, while frames went by TCP. Whose
	// answer it is WireGuard finds out.
	udpAnswered atomic.Int64
	shook       atomic.Int64  // when a message of a handshake was sent last, by any way, in Unix nanoseconds
	detours     atomic.Bool   // handshakes go by TCP and through relays as well
	relayTurn   atomic.Uint32 // which relays are asked next; it begins anywhere, so that no host is everyone's relay
	relaying    struct {      // of what this host passes on for it
		sync.Mutex
		rate.Bucket
	}
	sockets    peerSockets
	partial    atomic.Bool                 // Peer.PartialChecksums
	preferring atomic.Pointer[destination] // where the next handshake goes alone; nil: everywhere
	// sentLarge says that large frames went there since the path's MTU was probed.
	sentLarge atomic.Bool
	probing   sync.Mutex // guards probes
	probes    probes

	in, out counter
	pending pendingBurst // small frames that wait for others
}

// destination is where a peer's datagrams go. It never changes once it is stored.
type destination struct {
	addr netip.AddrPort
	sock *socket
	raw  rawAddr
	seen bool    // others have seen the host there; it has not named the address
	from *source // where datagrams leave from; nil: the kernel chooses
}

func newDestination(a netip.AddrPort, s *socket) destination {
	return destination{addr: a, sock: s, raw: newRawAddr(a)}
}

// counter counts frames and their bytes, on a cache line of its own.
type counter struct {
	frames, bytes atomic.Uint64
	_             [48]byte
}

func (c *counter) add(frames, bytes int) {
	c.frames.Add(uint64(frames))
	c.bytes.Add(uint64(bytes))
}

// outerHeaders is what IP and UDP add in front of VXLAN, in bytes.
func outerHeaders(v6 bool) int {
	if v6 {
		return 40 + 8
	}
	return 20 + 8
}

// newPeer makes a peer without an address.
func newPeer(f *Fabric, host overlay.HostID) *peer {
	p := &peer{f: f, host: host, foreign: host == ""}
	p.pathMTU.Store(defaultIPMTU)
	p.candidates.Store(&[]*destination{})
	p.setTCP(nil)
	p.relayTurn.Store(rand.Uint32N(1 << 16))
	p.stage.PerSecond, p.stage.Burst = staged, staged
	p.relaying.PerSecond, p.relaying.Burst = relayRate, relayBurst
	return p
}

// setAddr has the peer's datagrams go to an address, from one of this host's (invalid: the kernel chooses), and asks
// the kernel for the path's MTU.
func (p *peer) setAddr(a netip.AddrPort, from netip.Addr) {
	d := p.dest.Load()
	same := d != nil && d.addr == a
	if same && d.from.current() == from {
		return
	}
	s := p.f.socketFor(a.Addr())
	if s == nil {
		p.dest.Store(nil)
		return
	}
	next := newDestination(a, s)
	if from.IsValid() {
		next.from = newSource(from)
	}
	p.dest.Store(&next)
	if same {
		return
	}
	p.formerly.Store(d)
	p.refreshMTU()
	p.probing.Lock()
	defer p.probing.Unlock()
	p.probes.mtu.forget()
}

// innerMTU is how large a packet inside a frame may be for this peer's path, in bytes; 0 where it has no address.
func (p *peer) innerMTU(sealed bool) int {
	d := p.dest.Load()
	if d == nil {
		return 0
	}
	if via := p.via.Load(); via != nil && sealed {
		return seal.Room(relayRoom(via)) - encapLen
	}
	if !sealed {
		return p.f.cfg.Encap.InnerMTU(int(p.pathMTU.Load()), d.sock.v6)
	}
	return InnerMTU(int(p.pathMTU.Load()), d.sock.v6, sealed)
}

// InnerMTU is how large a packet of a container may be on a path where IP packets of mtu bytes get through.
func InnerMTU(mtu int, v6, sealed bool) int {
	n := mtu - outerHeaders(v6)
	if sealed {
		n = seal.Room(n)
	}
	return n - encapLen
}

// plainAddr makes an address comparable with those of datagrams that come in.
func plainAddr(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// hostPeer is the peer of a host, which is made where there is none: entries may name a host before its record comes.
// The caller holds mu.
func (f *Fabric) hostPeer(h overlay.HostID) *peer {
	p := f.hosts[h]
	if p == nil {
		p = newPeer(f, h)
		f.hosts[h] = p
	}
	return p
}

// SetPeers says which other hosts there are, in the place of what was said before. This host itself is passed over.
// Frames for a host that is no more named are dropped.
func (f *Fabric) SetPeers(peers []Peer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() {
		return ErrClosed
	}
	if len(peers) > maxPeers {
		return fmt.Errorf("fabric: %d hosts, and there may be %d", len(peers), maxPeers)
	}
	byAddr := make(map[netip.AddrPort]*peer, len(peers))
	byHost := make(map[overlay.HostID]*peer, len(peers))
	byVTEP := map[netip.Addr]*peer{}
	ofHosts := make(map[netip.Addr]bool, len(peers))
	endpoints := make(map[netip.AddrPort]*addrEndpoint, len(peers))
	keys := make(map[overlay.HostID]overlay.Key, len(peers))
	named := make(map[overlay.HostID]bool, len(peers))
	for _, c := range peers {
		if c.Host == f.cfg.Host || c.Host == "" || named[c.Host] {
			continue
		}
		named[c.Host] = true
		if c.Key != (overlay.Key{}) {
			keys[c.Host] = c.Key
		}
		p := f.hostPeer(c.Host)
		byHost[c.Host] = p
		var usable []*destination
		named := min(len(c.Addrs), maxAddrs)
		all := slices.Concat(c.Addrs[:named], c.Seen[:min(len(c.Seen), maxAddrs)])
		for i, a := range all {
			a = plainAddr(a)
			s := f.socketFor(a.Addr())
			if !a.IsValid() || a.Port() == 0 || s == nil || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
				continue
			}
			e := &addrEndpoint{dest: newDestination(a, s), peer: p}
			e.dest.seen = i >= named
			usable = append(usable, &e.dest)
			if byAddr[a] == nil { // the first that claims an address has it
				byAddr[a], endpoints[a] = p, e
			}
			ofHosts[a.Addr()] = true
			if f.cfg.Devices && byVTEP[a.Addr()] == nil {
				byVTEP[a.Addr()] = p
			}
		}
		p.setCandidates(usable)
		p.setTCP(c.TCP)
		p.sockets.takes.Store(c.Sockets)
		p.partial.Store(c.PartialChecksums)
	}
	for h, p := range f.hosts {
		if !named[h] {
			p.setCandidates(nil)
			p.setTCP(nil)
			p.sockets.takes.Store(false)
			p.partial.Store(false)
		}
	}
	bySeal := f.setKeys(keys)
	f.forgetHosts(named)
	for _, p := range byHost { // where WireGuard hears them, and did before
		if p.key.Load() == nil || !p.isAlive(time.Now()) {
			continue
		}
		if d := p.formerly.Load(); d != nil && byAddr[d.addr] == nil {
			byAddr[d.addr], endpoints[d.addr] = p, &addrEndpoint{dest: newDestination(d.addr, d.sock), peer: p}
		}
		d := p.dest.Load()
		if d != nil && byAddr[d.addr] != p && p.isHeardAt(d.addr) && !byAddr[d.addr].isHeardAt(d.addr) {
			byAddr[d.addr], endpoints[d.addr] = p, &addrEndpoint{dest: newDestination(d.addr, d.sock), peer: p}
		}
	}
	f.change(func(s *state) {
		s.byAddr, s.byHost, s.byVTEP, s.bySeal, s.endpoints = byAddr, byHost, byVTEP, bySeal, endpoints
		s.ofHosts = ofHosts
	})
	if t := f.tunnel.Load(); t != nil {
		if err := t.SetPeers(f.countingKeys()); err != nil {
			return fmt.Errorf("fabric: %w", err)
		}
	}
	f.wake()
	return nil
}

// setKeys checks the keys of hosts. It returns the hosts whose keys count, by their addresses inside the tunnel. The
// caller holds mu.
func (f *Fabric) setKeys(keys map[overlay.HostID]overlay.Key) map[netip.Addr]*peer {
	good, errs := f.cfg.Pins.Check(keys)
	for _, err := range errs {
		f.refuse(err)
	}
	bySeal := make(map[netip.Addr]*peer, len(good))
	for h, p := range f.hosts {
		k, ok := good[h]
		if !ok {
			p.key.Store(nil)
			p.inside.Store(nil)
			continue
		}
		a := seal.Addr(k)
		if bySeal[a] != nil || k == f.PublicKey() {
			f.refuse(fmt.Errorf("host %s has the key of another host: it is refused", h.Short()))
			p.key.Store(nil)
			p.inside.Store(nil)
			continue
		}
		p.key.Store(&k)
		p.inside.Store(&a)
		bySeal[a] = p
	}
	return bySeal
}

// refuse tells of a refusal once: the table says the same again and again. The caller holds mu.
func (f *Fabric) refuse(err error) {
	if f.refused[err.Error()] {
		return
	}
	if len(f.refused) > maxPeers {
		clear(f.refused)
	}
	f.refused[err.Error()] = true
	f.cfg.Refused(err)
}

// countingKeys are the keys that count, by host. The caller holds mu.
func (f *Fabric) countingKeys() map[overlay.HostID]overlay.Key {
	m := map[overlay.HostID]overlay.Key{}
	for h, p := range f.hosts {
		if k := p.key.Load(); k != nil {
			m[h] = *k
		}
	}
	return m
}

// setCandidates takes the addresses of a host, the best first. One that WireGuard hears is reached there until a better
// one answers (prefer.go). Else it stays where it is reached, as long as that is one of them.
func (p *peer) setCandidates(list []*destination) {
	old := *p.candidates.Load()
	if !slices.EqualFunc(old, list, func(a, b *destination) bool { return a.addr == b.addr }) {
		p.tryAgain()
	}
	p.candidates.Store(&list)
	d := p.dest.Load()
	if len(list) == 0 {
		p.dest.Store(nil)
		return
	}
	if d != nil && p.key.Load() != nil && p.isAlive(time.Now()) {
		return // where WireGuard hears it
	}
	for _, c := range list {
		if d != nil && c.addr == d.addr {
			return
		}
	}
	p.setAddr(list[0].addr, netip.Addr{})
}

// forgetHosts removes the peers that are neither named nor in a network's entries. The caller holds mu.
func (f *Fabric) forgetHosts(named map[overlay.HostID]bool) {
	used := map[*peer]bool{}
	for _, l := range f.state.Load().byVNI {
		t := l.table.Load()
		for _, p := range t.members {
			used[p] = true
		}
		for _, e := range t.byMAC {
			used[e.peer] = true
		}
	}
	maps.DeleteFunc(f.hosts, func(h overlay.HostID, p *peer) bool { return !named[h] && !used[p] })
}

// pendingBurst is the frames that wait to leave with others of their size.
type pendingBurst struct {
	sync.Mutex
	burst *burst      // nil: none
	link  *Link       // whose frames they are
	waits atomic.Bool // burst is not nil; read without the lock
}
