package fabric

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/isolate"
)

// When a handshake that no UDP has answered goes by TCP, and when through relays. WireGuard makes a new one after 5 s.
// Two at once fail, so the host with the higher id leaves the other one time.
const (
	heldForTCP    = tick
	heldForTCPToo = 3 * tick
	heldForRelays = 2 * tick // after it went by TCP
	udpTried      = 4 * time.Second
)

// heldHandshake is messages of handshakes that were sent by UDP and may have to go another way. One that came by two
// ways counts once: the second is a replay. An answer is held like a question, since only one way may be blocked.
type heldHandshake struct {
	sync.Mutex
	// An answer goes before a question, which would have the other end forget what it asked itself; nil: none.
	response, initiation []byte

	at      time.Time // of the last one
	byTCP   bool      // they were sent so, or are about to be
	dialing bool
	failed  bool // no connection came about
}

func (h *heldHandshake) forget() { h.response, h.initiation = nil, nil }

// all are the messages that there are.
func (h *heldHandshake) all() [][]byte {
	return slices.DeleteFunc([][]byte{h.response, h.initiation}, func(m []byte) bool { return m == nil })
}

// mayHold says whether handshakes with the peer are to go by TCP where they are not answered.
func (p *peer) mayHold() bool {
	return p.detours.Load() && p.carrier.Load() == nil && len(*p.tcp.Load()) > 0
}

// hold keeps a message of a handshake for other ways.
func (p *peer) hold(message []byte) {
	h := &p.held
	h.Lock()
	defer h.Unlock()
	switch message[0] {
	case sealInitiation:
		h.initiation = slices.Clone(message)
	case sealResponse: // a host that answers has given its own question up
		h.response, h.initiation = slices.Clone(message), nil
	default:
		return
	}
	h.at, h.byTCP, h.failed = time.Now(), false, false
}

// sendHeld sends held messages by the ways whose time has come.
func (p *peer) sendHeld(now time.Time) {
	h := &p.held
	h.Lock()
	defer h.Unlock()
	if len(h.all()) == 0 {
		return
	}
	relayed := p.via.Load() != nil && !p.isLost(now) // by one that still does
	if !relayed && p.answeredSince(h.at) || p.carrier.Load() != nil {
		h.forget() // they were answered, or are not needed
		return
	}
	wait := heldForTCP
	if p.f.cfg.Host > p.host {
		wait = heldForTCPToo
	}
	age := now.Sub(h.at)
	if age >= wait && !h.byTCP {
		h.byTCP = true
		p.byTCP(h)
	}
	if age >= wait+heldForRelays || h.failed {
		if h.initiation != nil && !relayed {
			p.f.relayHandshake(p, [][]byte{h.initiation})
		}
		h.forget()
	}
}

// byTCP sends the held messages over the connection that was dialed, or dials. The caller has locked h.
func (p *peer) byTCP(h *heldHandshake) {
	if c := p.dialed.Load(); c != nil && !c.isClosed() {
		c.send(h.all())
		return
	}
	if h.dialing {
		return
	}
	h.dialing = true
	p.f.workers.Go(func() {
		var c *carrier
		isolate.Do(p.f.log, "connecting to another host", func() { c = p.dialCarrier() })
		h.Lock()
		defer h.Unlock()
		h.dialing, h.failed = false, c == nil
		if c != nil {
			p.dialed.Store(c)
			c.send(h.all())
		}
	})
}

// dialCarrier connects to the first of the peer's addresses that takes it; nil: none does.
func (p *peer) dialCarrier() *carrier {
	for _, a := range *p.tcp.Load() {
		d := net.Dialer{Timeout: carrierDial}
		conn, err := d.DialContext(p.f.carriers.ctx, "tcp", a.String())
		if err != nil {
			p.f.log.Debug("no connection to another host", "host", p.host, "address", a, "error", err)
			continue
		}
		if c := p.f.addCarrier(conn.(*net.TCPConn), p, nil); c != nil {
			return c
		}
	}
	return nil
}

// setTCP says where the peer takes connections.
func (p *peer) setTCP(addrs []netip.AddrPort) {
	var list []netip.AddrPort
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		if a = plainAddr(a); a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() {
			list = append(list, a)
		}
	}
	p.tcp.Store(&list)
}

// adoptCarrier has the peer's frames go by a connection: WireGuard has authenticated a message that came by it.
func (p *peer) adoptCarrier(c *carrier) {
	c.peer.Store(p)
	p.f.carriers.mu.Lock()
	p.f.carriers.known(c)
	p.f.carriers.mu.Unlock()
	if c.left.Load() == 0 {
		p.carrier.Store(c)
		p.via.Store(nil)
	}
	if c.isClosed() { // its end was not the peer's yet
		p.carrier.CompareAndSwap(c, nil)
	}
}

// leaveCarrier is called where WireGuard has heard the peer by UDP. Frames go that way from then on if this host's own
// handshake was answered there, which shows that both ways are open; what is still on the way by TCP does not lead back
// then. Else the connection stays, and is returned: the other host has heard this one, and may be heard by nobody. It
// ends the connection if it is.
func (p *peer) leaveCarrier() *carrier {
	c := p.carrier.Load()
	if c == nil {
		return nil
	}
	now := time.Now().UnixNano()
	if tried := p.udpTried.Load(); tried == 0 || now-tried > int64(udpTried) || p.udpAnswered.Load() < tried {
		return c
	}
	c.left.Store(now)
	p.carrier.CompareAndSwap(c, nil)
	return nil
}

// isClosed says whether the connection has ended.
func (c *carrier) isClosed() bool {
	select {
	case <-c.queue.closed:
		return true
	default:
		return false
	}
}
