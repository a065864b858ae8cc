package fabric

import (
	"math/rand/v2"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

const (
	// The handshake with one that is reached by a detour, at first and later, on average. WireGuard begins none within
	// 5 s of the last message of one (REKEY_TIMEOUT), also where that was its answer to the other host's.
	directAfter = 6 * time.Second
	directEvery = time.Minute
)

// isDetoured says whether the peer is reached through a relay or by TCP.
func (p *peer) isDetoured() bool { return p.via.Load() != nil || p.carrier.Load() != nil }

// directIsDue says whether the direct way to a peer that is reached by a detour is to be tried now: there may be one by
// now. Both hosts try, after 6 s, then after twice as long each time, up to a minute, of which a fifth is left to
// chance. The host with the higher id tries 6 s behind the other: not at the same time, when WireGuard would not begin
// a handshake, and within the 30 s for which a NAT lets in answers to a question that had none (Linux:
// nf_conntrack_udp_timeout). Its caller holds probing.
func (p *peer) directIsDue(now time.Time) bool {
	s, second := &p.probes, p.f.cfg.Host > p.host
	if s.directTries == 0 && second {
		s.directTries, s.directAt, s.directLast = 1, now.Add(2*directAfter), now
	}
	shook := time.Unix(0, p.shook.Load())
	follows := second && shook.After(s.directLast) && now.Sub(s.directLast) >= directEvery/2
	if now.Before(s.directAt) && !follows || now.Sub(shook) < directAfter {
		return false
	}
	wait := min(directAfter<<s.directTries, directEvery)
	s.directTries = min(s.directTries+1, 8)
	s.directAt, s.directLast = now.Add(wait*9/10+rand.N(wait/5)), now
	return true
}

// noteHandshake notes when a message of a handshake is sent.
func noteHandshake(ep conn.Endpoint, now time.Time) {
	var p *peer
	switch e := ep.(type) {
	case *addrEndpoint:
		p = e.peer
	case *carrierEndpoint:
		p = e.c.peer.Load()
	case *relayEndpoint:
		p = e.to
	case *hostEndpoint:
		p = e.peer
	}
	if p != nil {
		p.shook.Store(now.UnixNano())
	}
}
