package forwarder

import (
	"container/list"
	"net/netip"
	"sync/atomic"
	"time"
)

// How long a mapping is kept after its last packet in either direction (RFC 4787 REQ-6). Until it was answered nobody may be
// there, and anybody can bring such a mapping about with a forged source: 30 s is what Linux has for it (nf_conntrack_udp_timeout).
// RFC 4787 REQ-5 wants 2 minutes at least and recommends 5; what goes to port 53 alone needs no more than a resolver waits
// (REQ-5 c). RFC 5508 REQ-2 wants 60 s at least for pings.
const (
	unansweredTimeout = 30 * time.Second
	answeredTimeout   = 5 * time.Minute
	dnsTimeout        = 20 * time.Second
	pingTimeout       = 60 * time.Second
)

// mapping is what an outbound association, a client of a published UDP port and a ping session have in common: it counts to
// a container's limit, has an age, and has been answered or not.
type mapping struct {
	f       *Forwarder
	kind    usageKind
	owner   netip.Addr // the container's address
	created time.Time

	descriptors                              claim
	bytesIn, bytesOut, packetsIn, packetsOut atomic.Uint64
	last                                     atomic.Int64 // the last packet in either direction, by clock
	answered                                 atomic.Bool  // there have been packets in both
	brief                                    atomic.Bool  // it goes to port 53 alone

	place  *list.Element // in its container's queue; nil: it is in none. Guarded by f.mu, as is queued
	queued int64         // when it came to its place, by clock
}

// mapped is a mapping of any kind.
type mapped interface {
	base() *mapping
	// end takes the mapping out of its forwarder. Ending it again does nothing.
	end()
}

func (m *mapping) base() *mapping { return m }

func (m *mapping) used() { m.last.Store(clock()) }

// answer notes that the other direction has been used as well.
func (m *mapping) answer() {
	m.used()
	if m.answered.Load() || !m.answered.CompareAndSwap(false, true) {
		return
	}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.f.queueOf(m).promote(m)
}

// timeout is how long the mapping is kept after its last packet.
func (m *mapping) timeout() time.Duration {
	switch {
	case m.kind == useEcho:
		return pingTimeout
	case m.brief.Load():
		return dnsTimeout
	case m.answered.Load():
		return answeredTimeout
	}
	return unansweredTimeout
}

func (m *mapping) expired(now int64) bool { return now-m.last.Load() > int64(m.timeout()) }

// queueKey is a container's mappings of one kind.
type queueKey struct {
	owner netip.Addr
	kind  usageKind
}

// queue has a container's mappings of one kind in the order in which they are given up where there is no room for another:
// first those that were never answered, the oldest first, then answered ones, of which those that were used since they came to
// the front get a second turn. Guarded by Forwarder.mu.
type queue struct{ unanswered, answered list.List }

func (q *queue) add(m mapped) {
	b := m.base()
	b.queued = clock()
	b.place = q.unanswered.PushBack(m)
}

func (q *queue) promote(m *mapping) {
	if m.place == nil {
		return // it is being given up
	}
	who := q.unanswered.Remove(m.place)
	m.queued = clock()
	m.place = q.answered.PushBack(who)
}

func (q *queue) remove(m *mapping) {
	if m.place != nil { // in one of them
		q.unanswered.Remove(m.place)
		q.answered.Remove(m.place)
		m.place = nil
	}
}

// oldest removes the mapping that is given up next from the queue; nil: there is none.
func (q *queue) oldest() mapped {
	e := q.unanswered.Front()
	for range q.answered.Len() {
		if e != nil {
			break
		}
		front := q.answered.Front()
		if m := front.Value.(mapped).base(); m.last.Load() > m.queued {
			m.queued = clock()
			q.answered.MoveToBack(front)
			continue
		}
		e = front
	}
	if e == nil {
		e = q.answered.Front() // all were used since
	}
	if e == nil {
		return nil
	}
	who := e.Value.(mapped)
	q.remove(who.base())
	return who
}

func (q *queue) empty() bool { return q.unanswered.Len()+q.answered.Len() == 0 }

// queueOf is where a mapping has its place. The caller holds f.mu.
func (f *Forwarder) queueOf(m *mapping) *queue {
	k := queueKey{m.owner, m.kind}
	q := f.queues[k]
	if q == nil {
		q = new(queue)
		f.queues[k] = q
	}
	return q
}

// register gives a mapping its place, and has expired ones looked for. The caller holds f.mu.
func (f *Forwarder) register(m mapped) {
	f.queueOf(m.base()).add(m)
	f.sweepLater()
}

// unregister takes a mapping's place, and its use of the limits. The caller holds f.mu and has taken it out of its table.
func (f *Forwarder) unregister(m *mapping) {
	q := f.queueOf(m)
	q.remove(m)
	if q.empty() {
		delete(f.queues, queueKey{m.owner, m.kind})
	}
	m.descriptors.release()
	f.releaseUseLocked(m.owner, m.kind)
}

// giveUps is how many mappings are given up for one newcomer at most: others may take the room that was made.
const giveUps = 4

// admit counts one more mapping of a container. Where it has as many as it may, the one that needs it least is given up: never
// the newcomer, or whoever filled the table once would keep everybody out.
func (f *Forwarder) admit(owner netip.Addr, kind usageKind) bool {
	for range giveUps {
		if f.acquireUse(owner, kind) {
			return true
		}
		if !f.giveUp(owner, kind) {
			return false
		}
	}
	return false
}

// claimMapping is claimDescriptors for a mapping that was admitted. Where no descriptor is left, another one is given up.
func (f *Forwarder) claimMapping(owner netip.Addr, kind usageKind, fd int) (claim, bool) {
	c, ok := f.claimDescriptors(owner, mappingDescriptors, fd)
	if !ok && f.giveUp(owner, kind) {
		c, ok = f.claimDescriptors(owner, mappingDescriptors, fd)
	}
	return c, ok
}

// giveUp ends the mapping of a container that it needs least. False: it has none.
func (f *Forwarder) giveUp(owner netip.Addr, kind usageKind) bool {
	f.mu.Lock()
	q := f.queues[queueKey{owner, kind}]
	if f.closed || q == nil {
		f.mu.Unlock()
		return false
	}
	m := q.oldest()
	f.mu.Unlock()
	if m == nil {
		return false
	}
	m.end()
	return true
}

// sweepInterval is how often expired mappings are looked for: what is kept is kept that much longer at most.
const sweepInterval = 5 * time.Second

// sweepLater arranges for expired mappings to be ended. Nothing runs while there are none. The caller holds f.mu.
func (f *Forwarder) sweepLater() {
	if !f.sweeping && !f.closed {
		f.sweeping = true
		f.sweepTimer = time.AfterFunc(sweepInterval, f.sweep) // which Close stops
	}
}

func (f *Forwarder) sweep() {
	now := clock()
	var ends []mapped
	f.mu.Lock()
	for _, q := range f.queues {
		for _, l := range []*list.List{&q.unanswered, &q.answered} {
			for e := l.Front(); e != nil; e = e.Next() {
				if m := e.Value.(mapped); m.base().expired(now) {
					ends = append(ends, m)
				}
			}
		}
	}
	f.mu.Unlock()
	for _, m := range ends {
		m.end()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sweeping = false
	if len(f.queues) > 0 {
		f.sweepLater()
	}
}

var started = time.Now()

// clock is how many nanoseconds this process is old: nobody who sets the machine's clock changes it.
func clock() int64 { return int64(time.Since(started)) }
