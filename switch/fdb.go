package vswitch

import (
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// The forwarding table finds the port that a MAC is behind: the ports' own MACs first, then what a control plane says
// (SetStatic), then what was learned from frames. Nobody takes a MAC over from a kind that comes before.

// learnedMAC is a MAC that was seen behind a port.
type learnedMAC struct {
	seen atomic.Int64 // when, by the port's clock; not kept where nothing ages
}

// learnedMACs is copied on each change, under Switch.mu.
type learnedMACs map[macKey]*learnedMAC

// now is the time for ageing: nanoseconds since the switch was made, which a change of the machine's clock does not
// move.
func (s *Switch) now() int64 { return int64(s.clock()) }

// SetStatic says which MACs are behind a port, in the place of what was said before: a control plane's knowledge, which
// beats what is learned from frames. A MAC that is another port's own, or static there, stays where it is.
func (s *Switch) SetStatic(p *Port, macs []net.HardwareAddr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if !slices.Contains(t.ports, p) {
		return
	}
	next := make(map[macKey]*Port, len(t.static)+len(macs))
	for mac, q := range t.static {
		if q != p {
			next[mac] = q
		}
	}
	for _, m := range macs {
		if len(m) != 6 || m[0]&1 != 0 {
			continue
		}
		k := keyOf(m)
		if t.own(k) == nil && next[k] == nil {
			next[k] = p
		}
	}
	for _, q := range t.ports { // what was learned elsewhere is so no more
		q.forget(func(k macKey, _ *learnedMAC) bool { return next[k] != nil })
	}
	p.static = true
	s.change(func(t *table) { t.static = next })
}

// find is the port that a MAC is behind, for a frame from a port r; nil where none is known. A router has one MAC in
// all VLANs.
func (t *table) find(s *Switch, r *portState, mac macKey) *Port {
	if q := t.own(mac); q != nil {
		return q
	}
	if q := t.static[mac]; q != nil {
		return q
	}
	for _, q := range t.learning {
		if l := (*q.learned.Load())[mac]; l != nil && !q.aged(s, l) && r.sameVLAN(q) {
			return q
		}
	}
	return nil
}

// aged says whether a learned MAC was last seen too long ago.
func (p *Port) aged(s *Switch, l *learnedMAC) bool {
	age := p.state.Load().age
	return age > 0 && s.now()-l.seen.Load() > int64(age)
}

// sawSource is told the source of a frame that is not the port's own MAC. It says whether the frame may pass: a MAC
// that is another port's, or static there, is taken over by none.
func (p *Port) sawSource(t *table, r *portState, src macKey) bool {
	if q := t.own(src); q != nil {
		return q == p
	}
	if q := t.static[src]; q != nil {
		return q == p
	}
	if r.limit == 0 {
		return true
	}
	if l := (*p.learned.Load())[src]; l == nil {
		p.learn(t, r, src)
	} else if r.age > 0 {
		l.seen.Store(p.sw.now())
	}
	return true
}

// learn notes a MAC behind a port, and that it is behind no other. A full table keeps what is not too old: the frame
// still passes, and answers to it are flooded to the ports that learn.
func (p *Port) learn(t *table, r *portState, mac macKey) {
	if len(*p.learned.Load()) >= r.limit && r.age == 0 {
		return
	}
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if p.closed.Load() {
		return
	}
	if len(*p.learned.Load()) >= r.limit {
		p.forget(func(_ macKey, l *learnedMAC) bool { return p.aged(p.sw, l) })
		if len(*p.learned.Load()) >= r.limit {
			return
		}
	}
	for _, q := range t.learning {
		if q != p && r.cfg.VLAN == q.state.Load().cfg.VLAN {
			q.forget(func(k macKey, _ *learnedMAC) bool { return k == mac })
		}
	}
	old := *p.learned.Load()
	if old[mac] != nil {
		return
	}
	next := make(learnedMACs, len(old)+1)
	maps.Copy(next, old)
	l := new(learnedMAC)
	l.seen.Store(p.sw.now())
	next[mac] = l
	p.learned.Store(&next)
}

// forget removes what is no more to be learned behind the port. The caller holds sw.mu.
func (p *Port) forget(which func(macKey, *learnedMAC) bool) {
	old := *p.learned.Load()
	found := false
	for k, l := range old {
		found = found || which(k, l)
	}
	if !found {
		return
	}
	next := maps.Clone(old)
	maps.DeleteFunc(next, which)
	p.learned.Store(&next)
}

// Static lists the MACs that SetStatic said to be behind the port, in order.
func (p *Port) Static() []net.HardwareAddr {
	var keys []macKey
	for k, q := range p.sw.table.Load().static {
		if q == p {
			keys = append(keys, k)
		}
	}
	return hardwareAddrs(keys)
}

// Learned lists the MACs seen behind the port, in order.
func (p *Port) Learned() []net.HardwareAddr {
	var keys []macKey
	for k, l := range *p.learned.Load() {
		if !p.aged(p.sw, l) {
			keys = append(keys, k)
		}
	}
	return hardwareAddrs(keys)
}

func hardwareAddrs(keys []macKey) []net.HardwareAddr {
	slices.Sort(keys)
	var list []net.HardwareAddr
	for _, k := range keys {
		list = append(
			list,
			net.HardwareAddr{byte(k >> 40), byte(k >> 32), byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)},
		)
	}
	return list
}

// monotonic is a clock that begins now.
func monotonic() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
