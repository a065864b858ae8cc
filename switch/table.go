package vswitch

import (
	"maps"
	"net/netip"
	"slices"
)

// table is what forwarding needs. It never changes once it is stored: its methods make what they change anew. MACs and
// addresses are spread over shards, of which a change makes one anew, so that a port comes and goes in the same time
// whether the network has ten ports or thousands.
type table struct {
	ports    []*Port // all, in order of connection
	byMAC    *shards[macKey, *Port]
	learning []*Port // those that learn, and so may have any MAC behind them
	// static has MACs behind ports that SetStatic was told of; none is in byMAC.
	static map[macKey]*Port
	// byAddr has the ports that are told their addresses (PortConfig.Addrs), in the order in which they were told.
	byAddr *shards[netip.Addr, []*Port]
	flush  []Flusher
}

func newTable() *table {
	return &table{byMAC: new(shards[macKey, *Port]), byAddr: new(shards[netip.Addr, []*Port])}
}

// shards is a map in parts.
type shards[K comparable, V any] [256]map[K]V

// with returns shards of which one was edited.
func (s *shards[K, V]) with(shard uint8, edit func(m map[K]V)) *shards[K, V] {
	next := *s
	m := maps.Clone(next[shard])
	if m == nil {
		m = map[K]V{}
	}
	edit(m)
	if len(m) == 0 {
		m = nil
	}
	next[shard] = m
	return &next
}

// shard is the part that a MAC is in. Those of containers follow from their addresses, and differ in their last bytes.
func (k macKey) shard() uint8 { return uint8(k) ^ uint8(k>>8) }

func addrShard(a netip.Addr) uint8 {
	b := a.As16()
	return b[15] ^ b[14]
}

// own is the port whose own MAC it is; nil where it is none's.
func (t *table) own(mac macKey) *Port { return t.byMAC[mac.shard()][mac] }

// at is the port that has an address, of several the last one; nil where none has.
func (t *table) at(a netip.Addr) *Port {
	ports := t.byAddr[addrShard(a)][a]
	if len(ports) == 0 {
		return nil
	}
	return ports[len(ports)-1]
}

// connect adds a port.
func (t *table) connect(p *Port) {
	t.ports = append(slices.Clone(t.ports), p)
	if f, ok := p.dev.(Flusher); ok {
		t.flush = append(slices.Clone(t.flush), f)
	}
	t.index(p, p.state.Load())
}

// disconnect removes a port.
func (t *table) disconnect(p *Port) {
	t.ports = without(t.ports, p)
	if f, ok := p.dev.(Flusher); ok {
		t.flush = without(t.flush, f)
	}
	t.unindex(p, p.state.Load())
	if p.static {
		t.static = maps.Clone(t.static)
		maps.DeleteFunc(t.static, func(_ macKey, q *Port) bool { return q == p })
	}
}

// index has a port be found by what it is told to have.
func (t *table) index(p *Port, r *portState) {
	t.byMAC = t.byMAC.with(r.mac.shard(), func(m map[macKey]*Port) { m[r.mac] = p })
	for _, a := range r.cfg.Addrs {
		a = a.Unmap()
		t.byAddr = t.byAddr.with(addrShard(a), func(m map[netip.Addr][]*Port) {
			if !slices.Contains(m[a], p) {
				m[a] = append(slices.Clone(m[a]), p)
			}
		})
	}
	if r.learns() {
		t.learning = append(slices.Clone(t.learning), p)
	}
	if t.static[r.mac] != nil {
		t.static = maps.Clone(t.static)
		delete(t.static, r.mac)
	}
}

// unindex undoes index.
func (t *table) unindex(p *Port, r *portState) {
	t.byMAC = t.byMAC.with(r.mac.shard(), func(m map[macKey]*Port) { delete(m, r.mac) })
	for _, a := range r.cfg.Addrs {
		a = a.Unmap()
		t.byAddr = t.byAddr.with(addrShard(a), func(m map[netip.Addr][]*Port) {
			if m[a] = without(m[a], p); len(m[a]) == 0 {
				delete(m, a)
			}
		})
	}
	if r.learns() {
		t.learning = without(t.learning, p)
	}
}

// without returns a list without one of its elements.
func without[T comparable](list []T, x T) []T {
	i := slices.Index(list, x)
	if i < 0 {
		return list
	}
	return slices.Concat(list[:i], list[i+1:])
}
