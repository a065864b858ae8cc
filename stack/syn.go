package stack

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/usernet/usernet/internal/isolate"
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

// syn is what a TCPRequest needs to know of its SYN.
type syn struct {
	quote []byte // the part that an ICMP error repeats (RFC 792: the IP header and 8 bytes)
	plain bool   // TCPRequest.Plain
	seq   uint32
	by    *source

	direct  *TCPRequest // of a SYN that went past netstack
	handing handing     // of such
}

// pendingSYNs are the SYNs that wait for a decision. A SYN is added before it goes to netstack's forwarder, and removed
// after the forwarder has got the decision. So each SYN in the forwarder's table is in here too, and a SYN that is sent
// again meanwhile is found here and dropped. No entry is left behind, as each has one request, which removes it.
type pendingSYNs struct {
	max, maxEach int

	mu   sync.Mutex
	byID map[stack.TransportEndpointID]syn // guarded by mu, as is each
	each rate.Keyed[netip.Addr, source]

	limited atomic.Uint64 // SYNs beyond attemptRate
}

// source is an address that sends SYNs.
type source struct {
	pending  int // how many of byID it has
	attempts rate.Bucket
}

func newSource() *source {
	return &source{attempts: rate.Bucket{PerSecond: attemptRate, Burst: attemptBurst}}
}

func newPendingSYNs(max, maxEach int) *pendingSYNs {
	return &pendingSYNs{
		max:     max,
		maxEach: maxEach,
		byID:    map[stack.TransportEndpointID]syn{},
		each: rate.Keyed[netip.Addr, source]{
			Max:  maxSources,
			New:  newSource,
			Idle: func(s *source, now time.Time) bool { return s.pending == 0 && s.attempts.Full(now) },
		},
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
	now := time.Now()
	by := p.each.Of(from, now)
	if by.pending >= p.maxEach {
		return false
	}
	if !by.attempts.Allow(now, 1) {
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

// takeTCP handles segments that belong to no connection. The forwarder decides about a SYN; netstack resets all others.
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
		plain: packet.PlainSYN(th[:th.DataOffset()]) && pkt.Data().Size() == 0,
		seq:   th.SequenceNumber(),
	}
	if g.syns.take(id) { // it has been decided about
		if !g.tcp.HandlePacket(id, pkt) {
			g.syns.giveBack(id)
			return false
		}
		return true
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

// handleTCP has the Handler decide about a SYN that netstack's forwarder has accepted.
func (g *Gateway) handleTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	h := g.handler.Load()
	if h == nil {
		r.Complete(true)
		g.syns.remove(id, false)
		return
	}
	s := g.syns.get(id)
	if s.direct != nil {
		s.direct.forwarded <- r
		return
	}
	t := &TCPRequest{
		id:    id,
		Src:   netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort),
		Dst:   netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort),
		Plain: s.plain,
		seq:   s.seq,
		quote: s.quote,
		g:     g,
		r:     r,
	}
	t.decide(*h)
}

// decide has a Handler decide.
func (t *TCPRequest) decide(h Handler) {
	log := t.g.link.log
	if !isolate.Do(log, "deciding about a connection", func() { h.HandleTCP(t) }, "from", t.Src, "to", t.Dst) {
		isolate.Do(log, "refusing a connection", t.Refuse) // a second panic if it was answered before the first
	}
}

// TCPRequest is a connection that a container wants. Exactly one of Accept, Bypassed, Refuse, Unreachable and Drop is
// called, once.
type TCPRequest struct {
	Src, Dst netip.AddrPort
	// Plain says that the SYN has no data, and no options but those that all kernels know: maximum segment size, window
	// scale, selective acknowledgements and timestamps (RFC 9293, 3.2; RFC 7323; RFC 2018).
	Plain bool
	id    stack.TransportEndpointID
	seq   uint32
	quote []byte // the part of the SYN that an ICMP error repeats
	g     *Gateway
	r     *tcp.ForwarderRequest // nil: netstack has not got the SYN (request)

	answered  bool                       // one of Accept, Bypassed, Refuse, Unreachable and Drop was called
	whole     []byte                     // the packet, where netstack has not got it
	forwarded chan *tcp.ForwarderRequest // has r once netstack has got it
}

// Ends are the container's address and port, and those that it wants to reach.
func (t *TCPRequest) Ends() (src, dst netip.AddrPort) { return t.Src, t.Dst }

// Seq is the SYN's sequence number.
func (t *TCPRequest) Seq() uint32 { return t.seq }

// CanBypass is Plain: an end that is not netstack's can answer as netstack would.
func (t *TCPRequest) CanBypass() bool { return t.Plain }

// Accept completes the handshake.
func (t *TCPRequest) Accept() (*Conn, error) {
	r := t.request()
	if r == nil {
		t.complete(false, false)
		return nil, net.ErrClosed
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	if err != nil {
		t.complete(true, false)
		return nil, &tcpipError{err}
	}
	t.complete(false, true)
	ep.SocketOptions().SetKeepAlive(true)
	return newConn(&queue, ep), nil
}

// Bypassed says that the container's connection was made past the gateway.
func (t *TCPRequest) Bypassed() { t.complete(false, true) }

// Refuse answers with a reset: connection refused.
func (t *TCPRequest) Refuse() {
	if !t.answered {
		t.request()
	}
	t.complete(true, false)
}

// Unreachable answers with ICMP destination unreachable: the host's, or its network's.
func (t *TCPRequest) Unreachable(host bool) {
	problem := packet.NetUnreachable
	if host {
		problem = packet.HostUnreachable
	}
	t.g.sendError(problem, t.Src.Addr(), t.quote)
	t.complete(false, false)
}

// Drop sends no answer: the container's SYN times out, as it would on a real network.
func (t *TCPRequest) Drop() { t.complete(false, false) }

// complete tells netstack the decision, and only then lets another SYN between the same ends through.
func (t *TCPRequest) complete(reset, connected bool) {
	if t.answered {
		panic("a SYN was answered twice") // the next one between the same ends may be pending by now
	}
	t.answered, t.whole = true, nil
	if t.r != nil {
		t.r.Complete(reset)
	}
	t.g.syns.remove(t.id, connected)
}
