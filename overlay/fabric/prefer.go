package fabric

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// A host names its addresses in its order. WireGuard goes on where it hears a host, which may be another address: one
// that the host had before, or the next one since the first did not answer. So a handshake is tried with a better one
// alone, from time to time. The other end answers from the address that it came to (addrEndpoint), and both go on
// there. Nothing is lost meanwhile: until the answer comes, frames go where they went.
//
// Every other time they are tried from the address of this host that the other end uses now, so that what the one host
// prefers does not undo what the other does; else from the one that the kernel chooses, as another may be needed.
const (
	preferEvery   = time.Minute     // at most, after 6 s at first
	preferSeldom  = 5 * time.Minute // where a host is behind a NAT, and its own addresses may lead nowhere
	preferSettled = 2 * time.Minute // at the first address, until it counts as one that works
)

// preferred are the named addresses that are better than the one where the peer is reached.
func (p *peer) preferred() []*destination {
	list, d := *p.candidates.Load(), p.dest.Load()
	at := slices.IndexFunc(list, func(c *destination) bool { return d != nil && c.addr == d.addr })
	if at < 0 {
		at = len(list)
	}
	return slices.DeleteFunc(slices.Clone(list[:at]), func(c *destination) bool { return c.seen })
}

// preferIsDue says whether better addresses of a peer are to be tried now.
func (p *peer) preferIsDue(now time.Time) bool {
	if p.key.Load() == nil || p.f.tunnel.Load() == nil || p.isDetoured() {
		return false
	}
	better := p.preferred()
	p.probing.Lock()
	defer p.probing.Unlock()
	s := &p.probes
	if len(better) == 0 {
		if s.preferredAt.IsZero() {
			s.preferredAt = now
		}
		if now.Sub(s.preferredAt) >= preferSettled {
			s.preferTries = 0
		}
		return false
	}
	s.preferredAt = time.Time{}
	if s.isLost(now) || s.lost > 0 || now.Before(s.preferAt) || now.Sub(time.Unix(0, p.shook.Load())) < directAfter {
		return false
	}
	most := preferEvery
	if d := p.dest.Load(); d == nil || !p.named(d.addr) {
		most = preferSeldom
	}
	if s.preferTries < 3 {
		most = preferEvery
	}
	wait := min(directAfter<<min(s.preferTries, 8), most)
	s.preferTries++
	s.preferAt = now.Add(wait*9/10 + rand.N(wait/5))
	return true
}

// hasShaken says whether a handshake was a moment ago: the peer may be heard at another address now.
func (p *peer) hasShaken(now time.Time) bool {
	return now.Sub(time.Unix(0, p.shook.Load())) < 2*directAfter
}

// tryPreferred begins a handshake with one of the better addresses of a peer, each in its turn.
func (p *peer) tryPreferred() {
	t, k, better := p.f.tunnel.Load(), p.key.Load(), p.preferred()
	if t == nil || k == nil || len(better) == 0 {
		return
	}
	p.probing.Lock()
	turn := max(p.probes.preferTries-1, 0) // new addresses may have come
	p.probing.Unlock()
	n := len(better)
	to := newDestination(better[turn%n].addr, better[turn%n].sock)
	if d := p.dest.Load(); d != nil && d.sock == to.sock && turn/n%2 == 0 {
		if from := d.from.current(); from.IsValid() {
			to.from = newSource(from)
		}
	}
	p.preferring.Store(&to)
	if err := t.Restart(*k); err != nil {
		p.f.log.Debug("handshake", "host", p.host, "error", err)
	}
	if p.preferring.Swap(nil) != nil { // WireGuard begins none so soon after the last one
		p.probing.Lock()
		defer p.probing.Unlock()
		p.probes.preferTries, p.probes.preferAt = max(p.probes.preferTries-1, 0), time.Now().Add(tick)
	}
}

// isHeardAt says whether WireGuard has heard the peer at an address of late, which another may name as well. A nil peer
// is not.
func (p *peer) isHeardAt(at netip.AddrPort) bool {
	if p == nil || p.key.Load() == nil || p.isDetoured() {
		return false
	}
	d := p.heardAt.Load()
	return d != nil && *d == at && time.Now().UnixNano()-p.heard.Load() < int64(aliveFor)
}

// listenTo has plain frames from the address at which WireGuard hears a host be that host's. It need not name it: it
// may have several, or be behind a NAT. And another host may name the address, which nobody has heard there.
func (f *Fabric) listenTo(p *peer, at netip.AddrPort) {
	if p.carrier.Load() != nil {
		return
	}
	p.heardAt.Store(&at)
	if q := f.state.Load().byAddr[at]; q == p || q.isHeardAt(at) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st, s := f.state.Load(), f.socketFor(at.Addr())
	if s == nil || st.byHost[p.host] != p {
		return
	}
	f.change(func(next *state) {
		next.byAddr, next.endpoints = maps.Clone(st.byAddr), maps.Clone(st.endpoints)
		next.byAddr[at], next.endpoints[at] = p, &addrEndpoint{dest: newDestination(at, s), peer: p}
	})
}
