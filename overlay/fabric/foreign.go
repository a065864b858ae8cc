package fabric

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/overlay"
)

// ForeignEntry is an endpoint behind a foreign peer, of which a control plane tells (EVPN).
type ForeignEntry struct {
	MAC   overlay.MAC
	Addrs []netip.Addr // may be fewer than it has
	Peer  netip.AddrPort
}

// SetForeign says which foreign peers frames to groups and to unknown MACs go to, besides those of the configuration,
// and which endpoints are behind which peer, in the place of what was said before. What is known is not learned from
// frames, and counts from its peer only. It returns the MACs, for vswitch.Switch.SetStatic. What cannot be is left out
// and is the error; the rest counts. A link with foreign entries has none of hosts (SetEntries).
func (l *Link) SetForeign(peers []netip.AddrPort, entries []ForeignEntry) ([]net.HardwareAddr, error) {
	f := l.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Load().byVNI[l.cfg.VNI] != l {
		return nil, ErrClosed
	}
	b := foreignTable{l: l, peers: map[netip.Addr]*peer{}, table: &table{
		byMAC:  make(map[overlay.MAC]*place, len(entries)),
		byAddr: make(map[netip.Addr]*place, len(entries)),
	}}
	for _, a := range slices.Concat(l.cfg.Foreign, peers) {
		b.flood(a)
	}
	macs := b.add(entries)
	l.table.Store(b.table)
	f.setLinks(func(map[uint32]*Link) {})
	l.learned.keep(b.table.foreign)
	return macs, errors.Join(b.errs...)
}

// maxForeignErrors is how many peers that cannot be are named.
const maxForeignErrors = 8

// foreignTable is a table that is being made.
type foreignTable struct {
	l     *Link
	table *table
	peers map[netip.Addr]*peer // nil: it cannot be one, which was said
	errs  []error
}

// peer returns the one at an address, or nil. An address has one port, which is the first that is named. The caller
// holds the fabric's mu.
func (b *foreignTable) peer(a netip.AddrPort) *peer {
	a = plainAddr(a)
	if p, known := b.peers[a.Addr()]; known {
		return p
	}
	var p *peer
	var err error
	if len(b.peers) >= maxForeign {
		err = fmt.Errorf("foreign peer %v: there may be %d", a, maxForeign)
	} else {
		p, err = b.l.f.foreignPeer(a)
	}
	b.peers[a.Addr()] = p
	if err != nil && len(b.errs) < maxForeignErrors {
		b.errs = append(b.errs, fmt.Errorf("network %s: %w", b.l.cfg.Name, err))
	}
	return p
}

// flood has frames to groups go to a peer.
func (b *foreignTable) flood(a netip.AddrPort) {
	if p := b.peer(a); p != nil && !slices.Contains(b.table.foreign, p) {
		b.table.foreign = append(b.table.foreign, p)
	}
}

// add takes the entries, and returns their MACs.
func (b *foreignTable) add(entries []ForeignEntry) (macs []net.HardwareAddr) {
	t := b.table
	for _, e := range entries {
		if e.MAC[0]&1 != 0 || e.MAC == (overlay.MAC{}) || e.MAC == b.l.gate || t.byMAC[e.MAC] != nil {
			continue
		}
		if len(t.byMAC) >= maxEntries {
			b.errs = append(b.errs, fmt.Errorf("network %s: there may be %d endpoints", b.l.cfg.Name, maxEntries))
			break
		}
		p := b.peer(e.Peer)
		if p == nil {
			continue
		}
		if !slices.Contains(t.foreign, p) && !slices.Contains(t.behind, p) {
			t.behind = append(t.behind, p)
		}
		at := &place{Entry: Entry{MAC: e.MAC}, peer: p}
		for _, a := range e.Addrs {
			if t.byAddr[a] == nil && !b.l.isGateway(a) {
				t.byAddr[a] = at
				at.Addrs = append(at.Addrs, a)
			}
		}
		t.byMAC[e.MAC] = at
		macs = append(macs, slices.Clone(e.MAC[:]))
	}
	return macs
}
