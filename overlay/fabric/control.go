package fabric

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// Hosts of the cluster speak to each other in frames of controlVNI: sealed where both have keys, else plain.
//
//	probe    is anybody there, and does a packet of this size get through?
//	answer   yes; it says as well from which address the probe came
//	relay    a sealed datagram for a third host, please (sealed only)
//	relayed  a sealed datagram of a third host (sealed only)
//	tell     what Tell was given (sealed only)
//
//	 0     1     2        10     12          28            44     46     54
//	 kind  zero  token    size   sender      address       port   clock, padding (probe, answer)
//	 kind  zero  host (16 bytes) WireGuard's message              (relay, relayed)
//	 kind  message                                                (tell)
const (
	controlProbe   = 1
	controlAnswer  = 2
	controlRelay   = 3
	controlRelayed = 4
	controlTell    = 5

	probeLen    = 46 // at least
	clockLen    = 54 // with the time of who answers, in nanoseconds since 1970: older hosts leave it out
	relayHeader = 18
)

// When hosts are probed: as long as one does not answer more often, since the first answer is waited for.
const (
	tick         = time.Second
	probeEvery   = 5 * time.Second
	answerWithin = 900 * time.Millisecond // else a probe counts as lost
	aliveFor     = 16 * time.Second       // after the last answer: three probes were lost
	lostRounds   = 4                      // without any answer: other ways are tried
	giveUpAfter  = 5 * time.Second        // without an answer: other ways are tried
	retryEvery   = 15 * time.Second       // the handshake with a host that is silent
)

// probes is what a peer's answers have said. It is guarded by peer.probing.
type probes struct {
	tokens      [2]uint64 // of the last two rounds: an answer may be late
	sentAt      [2]time.Time
	sent        bool      // a round was sent that was not judged yet
	heard       bool      // something was answered since the last round
	lost        int       // rounds without any answer, up to now
	next        time.Time // when the next round is due
	mtu         mtuSearch
	retryAt     time.Time // when a peer that is silent is tried again
	directAt    time.Time // when the direct way to a peer that a detour reaches is tried again
	directLast  time.Time // when it was tried last
	directTries int       // since it is reached by a detour, or has new addresses; 0: it is not
	preferAt    time.Time // when a better address of the peer is tried
	preferTries int       // since it has new addresses, or was at its first for long
	preferredAt time.Time // since when it is reached at its first address; zero: it is not

	since    time.Time // when it was first probed
	answered time.Time
	rtt      time.Duration
	ahead    time.Duration // of this host's clock
	seenAs   netip.AddrPort
}

// isAlive says whether the peer answered lately.
func (p *peer) isAlive(now time.Time) bool {
	p.probing.Lock()
	defer p.probing.Unlock()
	return !p.probes.answered.IsZero() && now.Sub(p.probes.answered) < aliveFor
}

// answeredSince says whether the peer has answered after a time.
func (p *peer) answeredSince(t time.Time) bool {
	p.probing.Lock()
	defer p.probing.Unlock()
	return p.probes.answered.After(t)
}

// tryAgain has other ways tried without waiting: there are new addresses.
func (p *peer) tryAgain() {
	p.probing.Lock()
	defer p.probing.Unlock()
	p.probes.retryAt, p.probes.directAt, p.probes.directTries = time.Time{}, time.Time{}, 0
	p.probes.preferAt, p.probes.preferTries = time.Time{}, 0
}

// isLost says whether the last rounds had no answer: a relay that it is reached through, or passes messages on to, may
// have ended.
func (p *peer) isLost(now time.Time) bool {
	p.probing.Lock()
	defer p.probing.Unlock()
	return p.probes.isLost(now)
}

// isLost is peer.isLost. Its caller holds probing.
func (s *probes) isLost(now time.Time) bool {
	return s.answered.IsZero() || now.Sub(s.answered) >= aliveFor || s.lost >= lostRounds
}

// round sends the probes that are due. It says whether other ways are to be tried: the peer has been silent for too
// long, or is reached through a relay.
func (p *peer) round(now time.Time) (silent bool) {
	p.probing.Lock()
	defer p.probing.Unlock()
	s := &p.probes
	if s.since.IsZero() {
		s.since = now
		// Two handshakes at once leave both hosts as responders, until one begins again after 5 s (whitepaper, 6.4).
		if p.f.cfg.Host > p.host && p.key.Load() != nil {
			s.next = now.Add(tick)
		}
	}
	alive := !s.answered.IsZero() && now.Sub(s.answered) < aliveFor
	switch {
	case s.isLost(now):
		silent = s.isSilent(now)
	case p.isDetoured():
		silent = p.directIsDue(now)
	default:
		s.directAt, s.directTries = time.Time{}, 0
	}
	if s.sent && now.Sub(s.sentAt[0]) >= answerWithin {
		if !s.heard {
			s.lost++
		}
		s.heard, s.sent = false, false
		if s.lost > 0 {
			s.next = now
		}
	}
	if now.Before(s.next) {
		return silent
	}
	s.next, s.sent = now.Add(probeEvery), true
	if !alive {
		s.next = now.Add(tick)
	}
	s.tokens[1], s.sentAt[1] = s.tokens[0], s.sentAt[0]
	s.tokens[0], s.sentAt[0] = newToken(), now
	p.sendProbe(s.tokens[0], 0)
	return silent
}

// searchMTU probes how large packets to the peer may be. It returns when that is to be done again, where that is before
// the next tick; else zero.
func (p *peer) searchMTU(now time.Time) (again time.Time) {
	d := p.dest.Load()
	if d == nil || p.isDetoured() {
		return again
	}
	p.probing.Lock()
	defer p.probing.Unlock()
	s := &p.probes
	if s.answered.IsZero() || now.Sub(s.answered) >= aliveFor {
		return again
	}
	within := min(max(3*s.rtt, answerLeast), answerWithin)
	least, known := leastMTU(d), p.pathMTU.Load()
	mtu, doubt := s.mtu.judge(now, int(known), least, within)
	if mtu != int(known) && !p.pathMTU.CompareAndSwap(known, int32(mtu)) {
		mtu = int(p.pathMTU.Load()) // somebody has told
	}
	if r := s.mtu.plan(now, mtu, least, doubt, p.sentLarge.Load(), within, p.routeMTU); r != nil {
		p.sentLarge.Store(false)
		p.sendRound(r)
	}
	if doubt || s.mtu.awaits(now, mtu, within) {
		again = now.Add(max(within/2, answerLeast/2))
	}
	return again
}

// sendRound sends the probes of a round.
func (p *peer) sendRound(r *mtuRound) {
	for _, size := range r.sizes {
		if !p.sendProbe(r.token, size) {
			p.probes.mtu.drop(r)
			return
		}
	}
}

// isSilent says whether other ways are to be tried to a peer that does not answer.
func (s *probes) isSilent(now time.Time) bool {
	last := s.answered
	if last.IsZero() {
		last = s.since
	}
	if now.Sub(last) < giveUpAfter || now.Before(s.retryAt) {
		return false
	}
	s.retryAt = now.Add(retryEvery)
	return true
}

// tryOtherWays is for a peer that does not answer, or only by a detour: its next address, or, sealed, all of them, TCP
// and relays.
func (p *peer) tryOtherWays() {
	t, k := p.f.tunnel.Load(), p.key.Load()
	if t == nil || k == nil {
		list := *p.candidates.Load()
		if d := p.dest.Load(); d != nil && len(list) > 1 {
			at := slices.IndexFunc(list, func(c *destination) bool { return c.addr == d.addr })
			p.setAddr(list[(at+1)%len(list)].addr, netip.Addr{})
		}
		return
	}
	p.detours.Store(true)
	if p.carrier.Load() != nil {
		p.udpTried.Store(time.Now().UnixNano())
	}
	if err := t.Restart(*k); err != nil {
		p.f.log.Debug("handshake", "host", p.host, "error", err)
	}
}

// sendProbe sends a probe that makes an IP packet of size bytes; 0: as small as it is. False: WireGuard is too busy.
// One that an interface does not take, as it is too large, counts as one that the path has lost.
func (p *peer) sendProbe(token uint64, size int) bool {
	d := p.dest.Load()
	if d == nil {
		return false
	}
	n := clockLen
	if size > 0 {
		room := size - outerHeaders(d.sock.v6)
		if p.key.Load() != nil && p.f.tunnel.Load() != nil {
			room = seal.Room(room)
		}
		if n = room - vxlanHeaderLen; n < clockLen {
			return true // nor is anything else so small
		}
	}
	m := make([]byte, n)
	m[0] = controlProbe
	binary.BigEndian.PutUint64(m[2:], token)
	binary.BigEndian.PutUint16(m[10:], uint16(size))
	putHost(m[12:], p.f.cfg.Host)
	left := p.sendControl(m, d)
	return left || p.inside.Load() == nil || p.f.tunnel.Load() == nil
}

// sendControl sends a message: sealed where that can be.
func (p *peer) sendControl(m []byte, d *destination) bool {
	if len(m) > largeDatagram && m[0] != controlProbe {
		p.sentLarge.Store(true)
	}
	var head [vxlanHeaderLen]byte
	putVXLAN(head[:], controlVNI)
	t, to := p.f.tunnel.Load(), p.inside.Load()
	if t != nil && to != nil {
		b := t.Batch()
		t.Add(b, *to, head[:], m)
		return t.Send(b) == nil
	}
	if d == nil {
		return false
	}
	b := bursts.Get().(*burst)
	defer b.release()
	copy(b.header(), head[:])
	b.add(vxlanHeaderLen, m)
	return b.message.send(d, b.iov[:b.iovs], 0) == 0
}

// control handles a message of a peer. from is where a plain one came from.
func (f *Fabric) control(p *peer, m []byte, sealed bool, from netip.AddrPort) {
	if p.foreign || !sealed && p.inside.Load() != nil && f.tunnel.Load() != nil {
		f.drops[DropPlain].Add(1) // who can seal does
		return
	}
	switch kind := m[0]; {
	case kind == controlProbe && len(m) >= probeLen:
		f.answer(p, m, from)
	case kind == controlAnswer && len(m) >= probeLen:
		p.answered(m)
	case kind == controlRelay && sealed:
		f.relay(p, m)
	case kind == controlRelayed && sealed:
		f.takeRelayed(p, m)
	case kind == controlTell && sealed:
		f.told(p, m[1:])
	default:
		f.drops[DropMalformed].Add(1)
	}
}

// answer answers a probe with no more than it had.
func (f *Fabric) answer(p *peer, probe []byte, from netip.AddrPort) {
	d := p.dest.Load()
	if !from.IsValid() && d != nil {
		from = d.addr
	}
	m := make([]byte, min(clockLen, len(probe)))
	copy(m, probe[:12])
	m[0] = controlAnswer
	putHost(m[12:], f.cfg.Host)
	if from.IsValid() {
		ip := from.Addr().As16()
		copy(m[28:], ip[:])
		binary.BigEndian.PutUint16(m[44:], from.Port())
	}
	if len(m) == clockLen {
		binary.BigEndian.PutUint64(m[probeLen:], uint64(f.cfg.Clock().UnixNano()))
	}
	if from.IsValid() && p.inside.Load() == nil { // plain: back to where it came from
		if s := f.socketFor(from.Addr()); s != nil {
			back := newDestination(from, s)
			d = &back
		}
	}
	p.sendControl(m, d)
}

// answered takes an answer to one of the last probes.
func (p *peer) answered(m []byte) {
	now := time.Now()
	p.probing.Lock()
	defer p.probing.Unlock()
	s := &p.probes
	token, size := binary.BigEndian.Uint64(m[2:]), int(binary.BigEndian.Uint16(m[10:]))
	at := slices.Index(s.tokens[:], token)
	known := p.pathMTU.Load()
	mtu, ofSize := s.mtu.answer(token, size, int(known))
	if at < 0 && !ofSize || token == 0 {
		p.f.drops[DropMalformed].Add(1)
		return
	}
	first := s.answered.IsZero() || now.Sub(s.answered) >= aliveFor
	s.answered, s.heard, s.lost = now, true, 0
	if mtu != int(known) {
		p.pathMTU.CompareAndSwap(known, int32(mtu))
	}
	if at == 0 {
		s.rtt = now.Sub(s.sentAt[0])
		if len(m) >= clockLen { // it was read half of the round trip ago
			theirs := time.Unix(0, int64(binary.BigEndian.Uint64(m[probeLen:])))
			s.ahead = p.f.cfg.Clock().Sub(theirs) - s.rtt/2
		}
	}
	s.seenAs = netip.AddrPortFrom(netip.AddrFrom16([16]byte(m[28:44])).Unmap(), binary.BigEndian.Uint16(m[44:]))
	if first {
		s.next = time.Time{}
		s.mtu.forget() // sizes at once
		p.detours.Store(false)
		p.f.wake()
	}
}

// putHost writes a host's id as its 16 bytes.
func putHost(b []byte, h overlay.HostID) {
	_, _ = hex.Decode(b[:16], []byte(h)) // ids were parsed
}

// hostOf reads 16 bytes of a host's id.
func hostOf(b []byte) overlay.HostID { return overlay.HostID(hex.EncodeToString(b[:16])) }
