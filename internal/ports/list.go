package ports

import (
	"cmp"
	"slices"

	"github.com/google/btree"
)

// List has bindings in the order of their keys, of which those that a binding names are found without going through
// the others. The zero value is empty. It is not for several goroutines at once.
type List struct {
	byKey *btree.BTreeG[entry]
	// places has each single port of each binding, so that a range has as many as it has ports.
	places *btree.BTreeG[place]
}

type entry struct {
	key uint64
	Binding
}

func (e entry) less(o entry) bool { return e.key < o.key }

// place is one port of a binding. host is its host port; 0: it is chosen, or one of several.
type place struct {
	proto      Protocol
	port, host uint16
	key        uint64
}

func (p place) less(o place) bool {
	return cmp.Or(cmp.Compare(p.proto, o.proto), cmp.Compare(p.port, o.port), cmp.Compare(p.host, o.host),
		cmp.Compare(p.key, o.key)) < 0
}

// Len is how many bindings there are.
func (l *List) Len() int {
	if l.byKey == nil {
		return 0
	}
	return l.byKey.Len()
}

// Add adds a binding behind all others.
func (l *List) Add(b Binding) { l.Put(l.Next(), b) }

// Next is a key behind all others.
func (l *List) Next() uint64 {
	if l.Len() == 0 {
		return 1
	}
	last, _ := l.byKey.Max()
	return last.key + 1
}

// Put adds a binding with a key, or replaces the one that has it.
func (l *List) Put(key uint64, b Binding) {
	if l.byKey == nil {
		l.byKey, l.places = btree.NewG(32, entry.less), btree.NewG(32, place.less)
	}
	l.Delete(key)
	l.byKey.ReplaceOrInsert(entry{key, b})
	b.eachPlace(key, func(p place) { l.places.ReplaceOrInsert(p) })
}

// Delete removes the binding with a key, if there is one.
func (l *List) Delete(key uint64) {
	if l.byKey == nil {
		return
	}
	if e, ok := l.byKey.Delete(entry{key: key}); ok {
		e.eachPlace(key, func(p place) { l.places.Delete(p) })
	}
}

func (b Binding) eachPlace(key uint64, f func(place)) {
	for i := range b.Count() {
		f(place{b.Proto, b.Port + uint16(i), b.hostOf(i), key})
	}
}

// hostOf is the host port of the binding's i-th port; 0: it is chosen, or one of several.
func (b Binding) hostOf(i int) uint16 {
	if b.HostPort == 0 || b.Count() == 1 && b.HostCount() > 1 {
		return 0
	}
	return b.HostPort + uint16(i)
}

// All returns the bindings, in order; nil: there are none.
func (l *List) All() []Binding {
	if l.Len() == 0 {
		return nil
	}
	list := make([]Binding, 0, l.Len())
	l.byKey.Ascend(func(e entry) bool { list = append(list, e.Binding); return true })
	return list
}

// Keys returns the keys, in order.
func (l *List) Keys() (keys []uint64) {
	if l.Len() > 0 {
		l.byKey.Ascend(func(e entry) bool { keys = append(keys, e.key); return true })
	}
	return keys
}

// Get returns the binding with a key, which has to be there.
func (l *List) Get(key uint64) Binding {
	e, _ := l.byKey.Get(entry{key: key})
	return e.Binding
}

// Touched returns the keys of the bindings with a port that p covers, and with a host port of it that p has too: any
// where p has none, or the binding has one that is not known. At which addresses they are is not asked.
func (l *List) Touched(p Binding) (keys []uint64) {
	if l.Len() == 0 {
		return nil
	}
	add := func(x place) bool {
		if n := len(keys); n == 0 || keys[n-1] != x.key {
			keys = append(keys, x.key)
		}
		return true
	}
	for i := range p.Count() {
		from, to := place{proto: p.Proto, port: p.Port + uint16(i)}, place{proto: p.Proto, port: p.Port + uint16(i)}
		if p.HostPort == 0 {
			l.places.AscendGreaterOrEqual(from, func(x place) bool {
				return x.proto == p.Proto && x.port == from.port && add(x)
			})
			continue
		}
		to.host = 1
		l.places.AscendRange(from, to, add)
		from.host, to.host, to.key = p.HostPort, max(p.HostPort, p.HostEnd), ^uint64(0)
		l.places.AscendRange(from, to, add)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Named returns the bindings of single ports that p names: by the container's port, and by the host's port and its
// address where p has them.
func (l *List) Named(p Binding) (keys []uint64, list []Binding) {
	for _, key := range l.Touched(p) {
		if b := l.Get(key); !p.HostIP.IsValid() || p.HostIP == b.HostIP {
			keys, list = append(keys, key), append(list, b)
		}
	}
	return keys, list
}

// Without is what is left of a binding without the ports that drop names. bound returns what is bound of a binding: one
// at all addresses of which drop names some is left at the others.
func (b Binding) Without(drop []Binding, bound func(Binding) []Binding) []Binding {
	if !b.HostIP.IsValid() && slices.ContainsFunc(drop, b.mayBeAt) {
		if at := b.at(bound(b)); slices.ContainsFunc(at, func(one Binding) bool {
			return slices.ContainsFunc(drop, func(p Binding) bool {
				return p.HostIP == one.HostIP && p.Covers(Port{one.Port, one.Proto})
			})
		}) {
			return subtract(at, drop)
		}
	}
	return subtract([]Binding{b}, drop)
}

// mayBeAt says whether p may name, by its address, one of the ports that b has at all addresses.
func (b Binding) mayBeAt(p Binding) bool {
	return p.HostIP.IsValid() && p.Port <= max(b.Port, b.End) && b.Port <= max(p.Port, p.End) &&
		(p.HostPort == 0 || b.HostPort == 0 ||
			p.HostPort <= max(b.HostPort, b.HostEnd) && b.HostPort <= max(p.HostPort, p.HostEnd))
}

// at is a binding for all addresses as bindings of single ports at the addresses where it is bound.
func (b Binding) at(bound []Binding) (list []Binding) {
	for _, x := range bound {
		one := Binding{HostIP: x.HostIP, Port: x.Port, End: x.Port, Proto: b.Proto}
		if b.HostPort != 0 {
			one.HostPort, one.HostEnd = x.HostPort, x.HostPort
		}
		list = append(list, one)
	}
	return list
}

// subtract removes from have the single ports that drop names; a range is split into what is left of it.
func subtract(have, drop []Binding) []Binding {
	var left []Binding
	n := 0
	for _, h := range have {
		n += h.Count()
		for i := range h.Count() {
			one := h
			one.Port, one.End = h.Port+uint16(i), h.Port+uint16(i)
			ranged := h.End > h.Port && h.HostPort != 0
			if ranged {
				one.HostPort, one.HostEnd = h.HostPort+uint16(i), h.HostPort+uint16(i)
			}
			gone := slices.ContainsFunc(drop, func(p Binding) bool {
				return p.Covers(Port{Port: one.Port, Proto: one.Proto}) &&
					(p.HostPort == 0 || one.HostPort == 0 || p.HostPort <= one.HostPort &&
						one.HostPort <= max(p.HostPort, p.HostEnd)) &&
					(!p.HostIP.IsValid() || p.HostIP == one.HostIP)
			})
			if !gone {
				left = append(left, one)
			}
		}
	}
	if len(left) == n {
		return have // nothing dropped: ranges stay whole
	}
	return left
}
