package fabric

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/overlay"
)

// Peer is another host as the cluster's table has it.
type Peer struct {
	Host  overlay.HostID
	Addrs []netip.AddrPort // where it is reached, the best first
	Key   overlay.Key      // zero: it takes part in no sealed network
}

// PeerState is what is known of a peer.
type PeerState struct {
	Host overlay.HostID // "" for a foreign peer
	Addr netip.AddrPort // where frames go now; invalid: nowhere
	// PathMTU is the largest IP packet that gets there, in bytes.
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
	pathMTU atomic.Int32                // of the outer IP packet, in bytes

	in, out counter
	pending pendingBurst // small frames that wait for others
}

// destination is where a peer's datagrams go. It never changes once it is stored.
type destination struct {
	addr netip.AddrPort
	sock *socket
	raw  rawAddr
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
	return p
}

// setAddr has the peer's datagrams go to an address, and asks the kernel for the path's MTU.
func (p *peer) setAddr(a netip.AddrPort) {
	if d := p.dest.Load(); d != nil && d.addr == a {
		return
	}
	s := p.f.socketFor(a.Addr())
	if s == nil {
		p.dest.Store(nil)
		return
	}
	p.dest.Store(&destination{addr: a, sock: s, raw: newRawAddr(a)})
	p.refreshMTU()
}

// innerMTU is how large a packet inside a frame may be for this peer's path, in bytes; 0 where it has no address.
func (p *peer) innerMTU() int {
	d := p.dest.Load()
	if d == nil {
		return 0
	}
	return int(p.pathMTU.Load()) - outerHeaders(d.sock.v6) - encapLen
}

// plainAddr makes an address comparable with those of datagrams that come in.
func plainAddr(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// hostPeer is the peer of a host, which is made where there is none: entries may name a host before its record comes. The
// caller holds mu.
func (f *Fabric) hostPeer(h overlay.HostID) *peer {
	p := f.hosts[h]
	if p == nil {
		p = newPeer(f, h)
		f.hosts[h] = p
	}
	return p
}

// SetPeers says which other hosts there are, in the place of what was said before. This host itself is passed over. Frames for a
// host that is no more named are dropped.
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
	named := make(map[overlay.HostID]bool, len(peers))
	for _, c := range peers {
		if c.Host == f.cfg.Host || c.Host == "" {
			continue
		}
		named[c.Host] = true
		p := f.hostPeer(c.Host)
		var usable []netip.AddrPort
		for _, a := range c.Addrs[:min(len(c.Addrs), maxAddrs)] {
			if a = plainAddr(a); a.IsValid() && a.Port() != 0 && f.socketFor(a.Addr()) != nil {
				usable = append(usable, a)
				if byAddr[a] == nil { // the first that claims an address has it
					byAddr[a] = p
				}
			}
		}
		p.setAddrs(usable)
	}
	for h, p := range f.hosts {
		if !named[h] {
			p.dest.Store(nil)
		}
	}
	f.forgetHosts(named)
	f.change(func(s *state) { s.byAddr = byAddr })
	return nil
}

// setAddrs takes the addresses of a host, the best first.
func (p *peer) setAddrs(list []netip.AddrPort) {
	if len(list) == 0 {
		p.dest.Store(nil)
		return
	}
	p.setAddr(list[0])
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

// Peers describes the hosts, by their ids, then the foreign peers by their addresses.
func (f *Fabric) Peers() []PeerState {
	f.mu.Lock()
	var all []*peer
	for _, p := range f.hosts {
		all = append(all, p)
	}
	f.mu.Unlock()
	for _, p := range f.state.Load().byIP {
		all = append(all, p)
	}
	list := make([]PeerState, 0, len(all))
	for _, p := range all {
		list = append(list, p.describe())
	}
	slices.SortFunc(list, func(a, b PeerState) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), a.Addr.Compare(b.Addr))
	})
	return list
}

func (p *peer) describe() PeerState {
	s := PeerState{
		Host:      p.host,
		PathMTU:   int(p.pathMTU.Load()),
		FramesIn:  p.in.frames.Load(),
		BytesIn:   p.in.bytes.Load(),
		FramesOut: p.out.frames.Load(),
		BytesOut:  p.out.bytes.Load(),
	}
	if d := p.dest.Load(); d != nil {
		s.Addr = d.addr
	}
	return s
}

// pendingBurst is the frames that wait to leave with others of their size.
type pendingBurst struct {
	sync.Mutex
	burst *burst      // nil: none
	link  *Link       // whose frames they are
	waits atomic.Bool // burst is not nil; read without the lock
}
