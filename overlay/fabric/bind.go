package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
)

// WireGuard's messages come to the same sockets as VXLAN. The first byte tells them apart: 1 to 4 is a WireGuard type
// (whitepaper, 5.4), VXLAN has its flags there.
const (
	sealInitiation = 1
	sealResponse   = 2
	sealData       = 4
	sealMin        = 32 // the shortest message: a keepalive
)

// isSealed says whether a datagram is a WireGuard message.
func isSealed(b []byte) bool {
	return len(b) >= sealMin && b[0] >= sealInitiation && b[0] <= sealData && b[1]|b[2]|b[3] == 0
}

// bind is the fabric's sockets as WireGuard uses them.
type bind struct{ f *Fabric }

var _ conn.Bind = bind{}

// Open implements conn.Bind. The sockets are open already.
func (b bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	var fns []conn.ReceiveFunc
	for _, s := range b.f.sockets {
		fns = append(fns, newReader(b.f, s).receive)
	}
	carried := &carrierReader{f: b.f}
	fns = append(fns, b.f.receiveRelayed, carried.receive)
	return fns, b.f.sockets[0].local.Port(), nil
}

// Close implements conn.Bind. The fabric closes the sockets, before WireGuard.
func (b bind) Close() error { return nil }

// SetMark implements conn.Bind.
func (b bind) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (b bind) BatchSize() int { return seal.BatchSize }

// ParseEndpoint implements conn.Bind: the endpoint of a host, by its id.
func (b bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	p := b.f.state.Load().byHost[overlay.HostID(s)]
	if p == nil {
		return nil, fmt.Errorf("no host %.40q", s)
	}
	return &hostEndpoint{peer: p}, nil
}

// noSource is what endpoints have in common that are no address: the kernel chooses the source.
type noSource struct{}

func (noSource) ClearSrc()           {}
func (noSource) SrcToString() string { return "" }
func (noSource) SrcIP() netip.Addr   { return netip.Addr{} }

// addrEndpoint is an address that a message came from. WireGuard answers there once the message has been authenticated,
// from the address that the message came to: so a host with several addresses is reached at the one that the other end
// has chosen.
type addrEndpoint struct {
	dest destination
	peer *peer // that names the address; nil: nobody does
	// answers is the same endpoint for messages that came to one of this host's addresses: the one they came to last.
	answers atomic.Pointer[addrEndpoint]
}

// destOf is where a message goes: a handshake that is to try a better address of the peer's goes there, also where what
// the peer has sent meanwhile has made WireGuard take up this endpoint again.
func (e *addrEndpoint) destOf(message []byte) *destination {
	if e.peer != nil && message[0] == sealInitiation {
		if better := e.peer.preferring.Swap(nil); better != nil {
			return better
		}
	}
	return &e.dest
}

// to is the endpoint for messages that came to an address of this host.
func (e *addrEndpoint) to(own netip.Addr) *addrEndpoint {
	if !own.IsValid() {
		return e
	}
	if a := e.answers.Load(); a != nil && a.dest.from.current() == own {
		return a
	}
	a := &addrEndpoint{dest: e.dest, peer: e.peer}
	a.dest.from = newSource(own)
	e.answers.Store(a)
	return a
}

// ClearSrc implements conn.Endpoint: WireGuard begins a handshake again, as there was no answer. Where the host is
// heard all the same, it was one with another of its addresses.
func (e *addrEndpoint) ClearSrc() {
	heard := e.peer != nil && time.Now().UnixNano()-e.peer.heard.Load() < int64(2*probeEvery)
	if e.dest.from != nil && !heard {
		e.dest.from.gone.Store(true)
	}
}

// SrcIP implements conn.Endpoint.
func (e *addrEndpoint) SrcIP() netip.Addr { return e.dest.from.current() }

// SrcToString implements conn.Endpoint.
func (e *addrEndpoint) SrcToString() string { return e.SrcIP().String() }

const fromSource = " from "

// DstToString implements conn.Endpoint. It has the source as well: parseEndpoint.
func (e *addrEndpoint) DstToString() string {
	from := e.dest.from.current()
	if !from.IsValid() {
		return e.dest.addr.String()
	}
	return e.dest.addr.String() + fromSource + from.String()
}

// parseEndpoint reads what DstToString says of an address.
func parseEndpoint(s string) (at netip.AddrPort, from netip.Addr, ok bool) {
	text, src, _ := strings.Cut(s, fromSource)
	at, err := netip.ParseAddrPort(text)
	from, _ = netip.ParseAddr(src) // there may be none
	return at, from, err == nil
}

func (e *addrEndpoint) DstIP() netip.Addr { return e.dest.addr.Addr() }
func (e *addrEndpoint) DstToBytes() []byte {
	b, _ := e.dest.addr.MarshalBinary() // it has no error
	return b
}

// hostEndpoint is a host that has not been heard yet: handshakes go to all its addresses, and to where others relay to
// it.
type hostEndpoint struct {
	noSource
	peer *peer
}

func (e *hostEndpoint) DstToString() string { return string(e.peer.host) }
func (e *hostEndpoint) DstToBytes() []byte  { return []byte(e.peer.host) }
func (e *hostEndpoint) DstIP() netip.Addr {
	if d := e.peer.dest.Load(); d != nil {
		return d.addr.Addr()
	}
	return netip.Addr{}
}

// endpoint is the endpoint of an address that something came from, to an address of this host.
func (f *Fabric) endpoint(st *state, from netip.AddrPort, to netip.Addr, s *socket) *addrEndpoint {
	e := st.endpoints[from]
	if e == nil {
		e = &addrEndpoint{dest: newDestination(from, s)}
	}
	return e.to(to)
}

// Send implements conn.Bind. What cannot be sent is counted, and is no error: the network may lose it as well.
func (b bind) Send(bufs [][]byte, ep conn.Endpoint) error {
	f := b.f
	if len(bufs) == 0 {
		return nil
	}
	if f.closed.Load() {
		return net.ErrClosed
	}
	if k := bufs[0][0]; k == sealInitiation || k == sealResponse {
		noteHandshake(ep, time.Now())
	}
	switch e := ep.(type) {
	case *addrEndpoint:
		var c *carrier
		switch p := e.peer; {
		case p == nil:
		case bufs[0][0] == sealData:
			c = p.leaveCarrier()
		case p.mayHold():
			p.hold(bufs[0])
		}
		if c != nil {
			c.send(bufs)
		} else {
			f.sendSealed(e.destOf(bufs[0]), bufs)
		}
	case *carrierEndpoint:
		if p := e.c.peer.Load(); p != nil && e.c.isClosed() {
			if d := p.dest.Load(); d != nil {
				f.sendSealed(d, bufs)
			}
			break
		}
		e.c.send(bufs)
	case *relayEndpoint:
		f.sendRelayed(e, bufs)
	case *hostEndpoint:
		if bufs[0][0] == sealInitiation {
			f.sendEverywhere(e.peer, bufs)
		} else if via := e.peer.via.Load(); via != nil {
			f.sendRelayed(&relayEndpoint{via: via, to: e.peer}, bufs)
		} else if c := e.peer.carrier.Load(); c != nil {
			c.send(bufs)
		} else if d := e.peer.dest.Load(); d != nil {
			f.sendSealed(d, bufs)
		}
	default:
		return conn.ErrWrongEndpointType
	}
	n := 0
	for _, buf := range bufs {
		if len(buf) > sealMin && buf[0] == sealData {
			n++
		}
	}
	if t := f.tunnel.Load(); t != nil && n > 0 {
		t.Sent(n)
	}
	return nil
}

// sealedSend is one call's worth of sealed messages.
type sealedSend struct {
	message sendMessage
	iov     [maxSegments]unix.Iovec
}

var sealedSends = sync.Pool{New: func() any {
	s := new(sealedSend)
	s.message.prepare()
	return s
}}

// sendSealed sends messages to an address, those of one size in one call.
func (f *Fabric) sendSealed(d *destination, bufs [][]byte) {
	s := sealedSends.Get().(*sealedSend)
	defer sealedSends.Put(s)
	for len(bufs) > 0 {
		size, total, n := len(bufs[0]), 0, 0
		for n < len(bufs) && n < maxSegments && total+len(bufs[n]) <= maxBurst {
			if len(bufs[n]) > size || n > 0 && len(bufs[n-1]) < size {
				break
			}
			s.iov[n].Base = &bufs[n][0]
			s.iov[n].SetLen(len(bufs[n]))
			total += len(bufs[n])
			n++
		}
		if n == 0 { // one that is larger than a datagram
			f.drops[DropTooBig].Add(1)
			bufs = bufs[1:]
			continue
		}
		segment := size
		if n == 1 {
			segment = 0
		}
		switch s.message.send(d, s.iov[:n], segment) {
		case 0:
		case unix.EMSGSIZE, unix.EINVAL:
			f.drops[DropTooBig].Add(uint64(n))
			if p := f.state.Load().byAddr[d.addr]; p != nil {
				p.refreshMTU()
			}
		default:
			f.drops[DropSend].Add(uint64(n))
		}
		clear(s.iov[:n])
		bufs = bufs[n:]
	}
}

// sendEverywhere sends a handshake to all addresses of a host. Both hosts do so at once, which opens the way through
// two NATs (RFC 5128, section 3.3). Where that may lead to nothing it goes by TCP later, and then through relays.
func (f *Fabric) sendEverywhere(p *peer, bufs [][]byte) {
	list := *p.candidates.Load()
	if d := p.preferring.Swap(nil); d != nil {
		list = []*destination{d}
	}
	for _, d := range list {
		f.sendSealed(d, bufs)
	}
	if p.mayHold() {
		p.hold(bufs[0])
	} else if p.detours.Load() && p.carrier.Load() == nil {
		f.relayHandshake(p, bufs)
	}
}

// heardFor is for how long a session counts as one after the host was heard last: WireGuard's keys last 180 s
// (whitepaper, 6.1).
const heardFor = 170 * time.Second

// staged is how many datagrams a second WireGuard may hold for a host that has not been heard: the first make it shake
// hands.
const staged = 32

// mayStage says whether n datagrams may go to WireGuard for the peer.
func (p *peer) mayStage(n int) bool {
	now := time.Now()
	if at := p.heard.Load(); at != 0 && now.UnixNano()-at < int64(heardFor) {
		return true
	}
	p.stage.Lock()
	defer p.stage.Unlock()
	return p.stage.Allow(now, float64(n))
}

// opened handles datagrams that came sealed, of the host with an address inside the tunnel.
func (f *Fabric) opened(from netip.Addr, datagrams [][]byte) {
	st := f.state.Load()
	p := st.bySeal[from]
	if p == nil {
		f.drops[DropUnknownPeer].Add(uint64(len(datagrams)))
		return
	}
	p.heard.Store(time.Now().UnixNano())
	f.delivering.RLock()
	defer f.delivering.RUnlock()
	j := joiners.Get().(*joiner)
	defer joiners.Put(j)
	for _, b := range datagrams {
		vni, frame, ok := parseVXLAN(b)
		if !ok {
			f.drops[DropNotVXLAN].Add(1)
			continue
		}
		if vni == controlVNI {
			f.control(p, frame, true, netip.AddrPort{})
			continue
		}
		l := st.byVNI[vni]
		switch {
		case l == nil:
			f.drops[DropUnknownVNI].Add(1)
		case !l.cfg.Sealed:
			l.drop(DropSealed)
		default:
			j.deliver(l, p, frame, 0)
		}
	}
	j.flush()
}

var joiners = sync.Pool{New: func() any { return new(joiner) }}
