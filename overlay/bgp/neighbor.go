package bgp

import (
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/rate"
)

// Times of connecting.
const (
	firstRetry, lastRetry = time.Second, 30 * time.Second
	dialTimeout           = 10 * time.Second
	// endOfRIBWait is how long after a new session routes stay that only the session before had, where the neighbour
	// does not mark the end of its routes.
	endOfRIBWait = 60 * time.Second
)

// How often malformed UPDATEs are logged; all are counted. A neighbour sends as many as it likes.
const faultsPerSecond, faultsAtOnce = 1, 10

// neighbor is one with which there is a session, or will be.
type neighbor struct {
	s    *Speaker
	cfg  Neighbor
	self self
	wake chan struct{} // has a value when there may be something to announce

	// Guarded by the speaker's mu.
	state   State
	refusal string // why the last attempt ended that got an answer, "" after a session: what follows says less
	learned map[NLRI]learned
	purge   *time.Timer // removes stale routes
	full    bool        // that there are too many was said
	faults  rate.Bucket // of what is said about malformed UPDATEs
}

// learned is a route of the neighbour.
type learned struct {
	path Path
	// until is when it is removed, of a route of a session that was lost and that no session since has said again;
	// zero: it is of the session that there is.
	until time.Time
}

func newNeighbor(s *Speaker, c Neighbor) *neighbor {
	n := &neighbor{
		s:       s,
		cfg:     c,
		self:    self{asn: s.cfg.ASN, external: c.ASN != s.cfg.ASN, id: s.cfg.RouterID, addrs: s.addrs},
		wake:    make(chan struct{}, 1),
		state:   State{Addr: c.Addr, ASN: c.ASN, Since: time.Now()},
		learned: map[NLRI]learned{},
	}
	n.faults.PerSecond, n.faults.Burst = faultsPerSecond, faultsAtOnce
	n.purge = time.AfterFunc(s.staleTime, func() { n.forget(time.Now()) })
	n.purge.Stop()
	return n
}

// tell has the session look for what is to be announced.
func (n *neighbor) tell() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run connects again and again, until the speaker is closed. A panic ends one session only.
func (n *neighbor) run() {
	wait := n.s.retry
	for n.s.ctx.Err() == nil {
		began := time.Now()
		err := isolate.Call(n.s.log, "speaking BGP", func() error { return n.session(n.s.ctx) },
			"neighbor", n.cfg.Addr.String())
		n.lost(err)
		if time.Since(began) > lastRetry {
			wait = n.s.retry
		}
		select {
		case <-n.s.ctx.Done():
		case <-time.After(wait + rand.N(wait/4)): // so that hosts that were started together do not go on so
		}
		wait = min(2*wait, lastRetry)
	}
}

// established notes a session.
func (n *neighbor) established(families []Family) {
	n.s.log.Info("BGP neighbour", "neighbor", n.cfg.Addr, "state", "established", "families", families)
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.state.Established, n.state.Since, n.state.Error, n.state.Families = true, time.Now(), "", families
	n.full, n.refusal = false, ""
	n.staleUntil(time.Now().Add(endOfRIBWait))
}

// lost notes the end of a session, or of an attempt. Its routes stay for a while, unless the neighbour meant its end.
func (n *neighbor) lost(err error) {
	var why *notification
	final := errors.As(err, &why) && why.final()
	n.s.mu.Lock()
	was := n.state.Established
	if was {
		n.state.Since = time.Now()
	}
	n.state.Established, n.state.Announced, n.state.Withheld, n.state.Families = false, 0, nil, nil
	repeated := false
	if err != nil && n.s.ctx.Err() == nil {
		text := err.Error()
		if why != nil {
			n.refusal = text
		} else if n.refusal != "" {
			text += "; before that: " + n.refusal
		}
		repeated = n.state.Error == text
		n.state.Error = text
	}
	changed := false
	switch {
	case final && len(n.learned) > 0:
		n.learned, changed = map[NLRI]learned{}, true
	case was:
		n.staleUntil(time.Now().Add(n.s.staleTime))
	}
	n.s.mu.Unlock()
	if !repeated && n.s.ctx.Err() == nil {
		n.s.log.Warn("BGP neighbour", "neighbor", n.cfg.Addr, "state", "down", "error", err)
	}
	if changed {
		n.s.cfg.Changed()
	}
}

// staleUntil has all routes removed at a time, or at the earlier one that they have, unless the neighbour says them
// again. The caller holds the speaker's mu.
func (n *neighbor) staleUntil(until time.Time) {
	first := until
	for nlri, l := range n.learned {
		if l.until.IsZero() || until.Before(l.until) {
			l.until = until
			n.learned[nlri] = l
		}
		if l.until.Before(first) {
			first = l.until
		}
	}
	if len(n.learned) > 0 {
		n.purge.Reset(time.Until(first))
	}
}

// forget removes the routes whose time has come.
func (n *neighbor) forget(now time.Time) {
	n.s.mu.Lock()
	before, left := len(n.learned), time.Time{}
	maps.DeleteFunc(n.learned, func(_ NLRI, l learned) bool { return !l.until.IsZero() && !now.Before(l.until) })
	for _, l := range n.learned {
		if !l.until.IsZero() && (left.IsZero() || l.until.Before(left)) {
			left = l.until
		}
	}
	if !left.IsZero() {
		n.purge.Reset(left.Sub(now))
	}
	changed := len(n.learned) != before
	n.s.mu.Unlock()
	if changed {
		n.s.cfg.Changed()
	}
}

// take notes what an UPDATE says.
func (n *neighbor) take(u update) {
	n.s.mu.Lock()
	changed, faulty := false, false
	n.state.Ignored += uint64(u.passedOver)
	if u.fault != "" {
		n.state.Malformed++
		faulty = n.faults.Allow(time.Now(), 1)
	}
	for _, nlri := range u.withdrawn {
		if _, is := n.learned[nlri]; is {
			delete(n.learned, nlri)
			changed = true
		}
	}
	full := false
	for _, r := range u.reach {
		if _, is := n.learned[r.NLRI]; !is && len(n.learned) >= MaxLearned {
			n.state.Ignored++
			full = full || !n.full
			n.full = true
			continue
		}
		n.learned[r.NLRI] = learned{path: r.Path}
		changed = true
	}
	n.s.mu.Unlock()
	if faulty {
		n.s.log.Warn("BGP routes count as withdrawn", "neighbor", n.cfg.Addr, "reason", u.fault,
			"routes", len(u.withdrawn))
	}
	if full {
		n.s.log.Warn("a BGP neighbour has more routes than are kept: the rest is not used", "neighbor", n.cfg.Addr,
			"kept", MaxLearned)
	}
	if u.ended == EVPN {
		n.forget(time.Now().Add(n.s.staleTime + endOfRIBWait)) // all that were not said again
	}
	if changed {
		n.s.cfg.Changed()
	}
}

// announced notes how many routes the neighbour was told, and how many not, by reason.
func (n *neighbor) announced(count int, withheld map[string]int) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.state.Announced, n.state.Withheld = count, withheld
}
