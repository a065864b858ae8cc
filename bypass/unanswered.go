package bypass

import (
	"net/netip"
	"time"
)

// unansweredInRow is how many connections may stay unanswered, none answered between, before the sandbox itself is
// taken to be the reason: a filter that the container has given one socket (a least TTL, RFC 5082; BPF) is no reason to
// keep all others from the bypass.
const unansweredInRow = 3

// maxUnansweredDestinations bounds how many are remembered. Where there are more, the one that may try first is
// forgotten.
const maxUnansweredDestinations = 64

// unanswered are connections of the container's that a socket of the pool has asked it for in vain.
type unanswered struct {
	destinations map[netip.AddrPort]pause
	inRow        int       // since one was answered
	suspended    int       // how often all were kept from the bypass since then
	prepared     time.Time // when the sandbox was prepared again because of one
}

// pause is how long connections to a destination take the gateway.
type pause struct {
	until time.Time
	times int // how often it was made
}

// Avoids says whether the container's connections to a destination take the gateway for a while.
func (p *Pool) Avoids(to netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, known := p.unanswered.destinations[to]
	return known && !time.Now().After(s.until)
}

// Answered says that the container took part in an outbound connection to a destination.
func (p *Pool) Answered(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unanswered.inRow, p.unanswered.suspended = 0, 0
	delete(p.unanswered.destinations, to)
}

// Unanswered says that the container did not take part in an outbound connection to a destination. Others to it take
// the gateway for a while, longer each time; and all, where several in a row were not answered. The sandbox is prepared
// again: the container may have removed what was made in it. Connections that were under way together count as one.
func (p *Pool) Unanswered(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, now := &p.unanswered, time.Now()
	s := u.destinations[to]
	if !p.works(Outbound) || !now.After(s.until) {
		return
	}
	u.remember(to, pause{now.Add(retryAfter << min(s.times, maxUnanswered)), s.times + 1})
	if u.inRow++; u.inRow >= unansweredInRow {
		p.renew = p.filling
		p.suspend(Outbound, retryAfter<<min(u.suspended, maxUnanswered))
		u.suspended++
		return
	}
	if now.Sub(u.prepared) >= retryAfter {
		u.prepared, p.renew = now, p.filling
		p.discard(kindOf(Outbound, false))
		p.discard(kindOf(Outbound, true))
	}
}

// remember keeps a destination, and forgets another where there are too many.
func (u *unanswered) remember(to netip.AddrPort, s pause) {
	if u.destinations == nil {
		u.destinations = map[netip.AddrPort]pause{}
	}
	if _, known := u.destinations[to]; !known && len(u.destinations) >= maxUnansweredDestinations {
		var first netip.AddrPort
		for d, each := range u.destinations {
			if !first.IsValid() || each.until.Before(u.destinations[first].until) {
				first = d
			}
		}
		delete(u.destinations, first)
	}
	u.destinations[to] = s
}
