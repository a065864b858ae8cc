package stack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxHandshakes is how many new connections may be undecided at once; the forwarder has lower limits for each container.
	maxHandshakes = 16384
	// maxHandshakesEach is how many one address may have of them: twice what the forwarder dials for a container by default, so
	// that some can be refused while others are dialled, and an eighth of the whole.
	maxHandshakesEach = maxHandshakes / 8
)

// syn is what a SYN says that is needed once it is decided about.
type syn struct {
	quote []byte // what an ICMP error repeats of it (RFC 792: the IP header and 8 bytes)
	plain bool   // TCPRequest.Plain
}

// pendingSYNs are the SYNs that nobody has decided about yet. A SYN is added before netstack's forwarder is given it, and
// removed after the forwarder has been told the decision: so whatever is in the forwarder's table is in here, and a SYN that is
// sent again meanwhile is found here and goes no further. Nothing is left behind, as each entry has one request which
// removes it.
type pendingSYNs struct {
	max, maxEach int

	mu   sync.Mutex
	byID map[stack.TransportEndpointID]syn // guarded by mu, as is each
	each map[netip.Addr]int                // how many of byID an address has
}

func newPendingSYNs(max, maxEach int) *pendingSYNs {
	return &pendingSYNs{max: max, maxEach: maxEach, byID: map[stack.TransportEndpointID]syn{}, each: map[netip.Addr]int{}}
}

// add adds a SYN. False: one between the same ends is there, or there are too many; it will be sent again.
func (p *pendingSYNs) add(id stack.TransportEndpointID, s syn) bool {
	from := addrOf(id.RemoteAddress)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.byID[id]; again || len(p.byID) >= p.max || p.each[from] >= p.maxEach {
		return false
	}
	p.byID[id] = s
	p.each[from]++
	return true
}

// get returns a SYN that was added and not removed.
func (p *pendingSYNs) get(id stack.TransportEndpointID) syn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

// remove removes a SYN that was added.
func (p *pendingSYNs) remove(id stack.TransportEndpointID) {
	from := addrOf(id.RemoteAddress)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.byID[id]; !ok {
		return
	}
	delete(p.byID, id)
	if p.each[from]--; p.each[from] == 0 {
		delete(p.each, from)
	}
}

// takeTCP is given the segments of no connection. It has the forwarder decide about a SYN; netstack resets the rest.
func (g *Gateway) takeTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	th := header.TCP(pkt.TransportHeader().Slice())
	if len(th) < header.TCPMinimumSize || int(th.DataOffset()) < header.TCPMinimumSize || int(th.DataOffset()) > len(th) {
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
	if !g.syns.add(id, s) {
		return true
	}
	if !g.tcp.HandlePacket(id, pkt) { // it launched no request, which would remove the SYN
		g.syns.remove(id)
		return false
	}
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
