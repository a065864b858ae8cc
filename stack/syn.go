package stack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/usernet/usernet/internal/packet"

	"github.com/usernet/usernet/internal/rate"
)

const (
	// maxHandshakes is how many new connections may be undecided at once; the forwarder has lower limits for each
	// container.
	maxHandshakes = 16384
	// maxHandshakesEach is how many one address may have of them: twice what the forwarder dials for a container by
	// default, so that some can be refused while others are dialled, and an eighth of the whole.
	maxHandshakesEach = maxHandshakes / 8

	// How many attempts to connect an address may make at once and a second. One that leads to a connection is given
	// back, so this bounds only such as are refused or not answered: a flood of SYNs, a scan of ports. Each costs some
	// 0.1 ms. A SYN beyond that is dropped, and comes again after a second (RFC 6298, 2.1).
	attemptRate, attemptBurst = 500, 1024
	// maxSources is how many addresses have a count of their own; containers without port guard may have many. Others
	// share one.
	maxSources = 4096
)

// syn is what a SYN says that is needed once it is decided about.
type syn struct {
	quote []byte // what an ICMP error repeats of it (RFC 792: the IP header and 8 bytes)
	plain bool   // TCPRequest.Plain
	by    *source
}

// pendingSYNs are the SYNs that nobody has decided about yet. A SYN is added before netstack's forwarder is given it,
// and removed after the forwarder has been told the decision: so whatever is in the forwarder's table is in here, and a
// SYN that is sent again meanwhile is found here and goes no further. Nothing is left behind, as each entry has one
// request which removes it.
type pendingSYNs struct {
	max, maxEach int

	mu   sync.Mutex
	byID map[stack.TransportEndpointID]syn // guarded by mu, as is each
	each map[netip.Addr]*source
	rest source // of those beyond maxSources

	limited atomic.Uint64 // SYNs beyond attemptRate
}

// source is who sends SYNs.
type source struct {
	pending  int // how many of byID it has
	attempts rate.Bucket
}

func newSource() *source {
	return &source{attempts: rate.Bucket{PerSecond: attemptRate, Burst: attemptBurst}}
}

// source returns that of an address. The caller holds mu.
func (p *pendingSYNs) source(from netip.Addr) *source {
	if s := p.each[from]; s != nil {
		return s
	}
	if len(p.each) >= maxSources {
		now := time.Now()
		for a, old := range p.each {
			if old.pending == 0 && old.attempts.Full(now) {
				delete(p.each, a)
			}
		}
		if len(p.each) >= maxSources {
			return &p.rest
		}
	}
	s := newSource()
	p.each[from] = s
	return s
}

func newPendingSYNs(max, maxEach int) *pendingSYNs {
	return &pendingSYNs{
		max:     max,
		maxEach: maxEach,
		byID:    map[stack.TransportEndpointID]syn{},
		each:    map[netip.Addr]*source{},
		rest:    *newSource(),
	}
}

// add adds a SYN. False: one between the same ends is there, or there are too many; it will be sent again.
func (p *pendingSYNs) add(id stack.TransportEndpointID, s syn) bool {
	from := addrOf(id.RemoteAddress)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.byID[id]; again || len(p.byID) >= p.max {
		return false
	}
	by := p.source(from)
	if by.pending >= p.maxEach {
		return false
	}
	if !by.attempts.Allow(time.Now(), 1) {
		p.limited.Add(1)
		return false
	}
	s.by = by
	p.byID[id] = s
	by.pending++
	return true
}

// get returns a SYN that was added and not removed.
func (p *pendingSYNs) get(id stack.TransportEndpointID) syn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

// remove removes a SYN that was added. Where it led to a connection, it was no attempt that counts.
func (p *pendingSYNs) remove(id stack.TransportEndpointID, connected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.byID[id]
	if !ok {
		return
	}
	delete(p.byID, id)
	s.by.pending--
	if connected {
		s.by.attempts.Refund(1)
	}
}

// takeTCP is given the segments of no connection. It has the forwarder decide about a SYN; netstack resets the rest.
func (g *Gateway) takeTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	th := header.TCP(pkt.TransportHeader().Slice())
	if len(th) < header.TCPMinimumSize || int(th.DataOffset()) < header.TCPMinimumSize ||
		int(th.DataOffset()) > len(th) {
		return true // no header that could be answered: dropped, as kernels do. Netstack has not looked at it yet
	}
	if th.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return g.tcp.HandlePacket(id, pkt)
	}
	nh := pkt.NetworkHeader().Slice()
	s := syn{
		quote: append(append(make([]byte, 0, len(nh)+quoted), nh...), th[:quoted]...),
		plain: plain(th) && pkt.Data().Size() == 0,
	}
	if g.outOfHops(id, pkt, s.quote) || !g.syns.add(id, s) {
		return true
	}
	if !g.tcp.HandlePacket(id, pkt) { // it launched no request, which would remove the SYN
		g.syns.remove(id, true)
		return false
	}
	return true
}

// outOfHops answers a SYN that must not travel on with "time exceeded", as a router does (RFC 1812, 5.3.1; RFC 4443,
// 3.3).
func (g *Gateway) outOfHops(id stack.TransportEndpointID, pkt *stack.PacketBuffer, quote []byte) bool {
	from, ttl := addrOf(id.RemoteAddress), byte(0)
	if from.Is4() {
		ttl = header.IPv4(pkt.NetworkHeader().Slice()).TTL()
	} else {
		ttl = header.IPv6(pkt.NetworkHeader().Slice()).HopLimit()
	}
	if ttl > 1 || g.Owns(addrOf(id.LocalAddress)) {
		return false
	}
	g.sendError(packet.HopsExceeded, from, quote)
	return true
}

// plain says whether a SYN has only options that all kernels know. Its data offset has been checked.
func plain(th header.TCP) bool {
	for opts := th.Options(); len(opts) > 0; {
		switch opts[0] {
		case header.TCPOptionEOL:
			return true
		case header.TCPOptionNOP:
			opts = opts[1:]
			continue
		case header.TCPOptionMSS, header.TCPOptionWS, header.TCPOptionTS, header.TCPOptionSACKPermitted:
		default:
			return false
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return false
		}
		opts = opts[opts[1]:]
	}
	return true
}
