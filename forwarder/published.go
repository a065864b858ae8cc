package forwarder

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// published is one bound host port.
type published struct {
	f        *Forwarder
	bound    Bound
	in4, in6 netip.Addr // the container
	// options of the socket. Where it takes both families (Dual), bound says [::].
	options sockio.ListenOptions
	sock    sockio.Socket
	clients map[clientKey]*inboundUDP // of UDP; guarded by f.mu
	resume  *time.Timer               // ends a pause; nil: there is none. Guarded by f.mu
}

func (p *published) key() portKey { return p.bound.key() }

// bounds is what the socket stands for.
func (p *published) bounds() []Bound {
	if !p.options.Dual {
		return []Bound{p.bound}
	}
	v4 := p.bound
	v4.Host = netip.AddrPortFrom(netip.IPv4Unspecified(), v4.Host.Port())
	return []Bound{v4, p.bound}
}

// insideFor is the container's end for a client of the given family, and the client as the container sees it.
func (p *published) insideFor(client netip.AddrPort) (src, dst netip.AddrPort) {
	a := client.Addr().Unmap().WithZone("")
	in := p.in4
	if a.Is6() && p.in6.IsValid() || !in.IsValid() {
		in = p.in6
	}
	src = netip.AddrPortFrom(a, client.Port())
	if a.Is4() != in.Is4() || p.f.cfg.Inside.Contains(a) || p.f.cfg.Shared.host.Has(a) {
		src = netip.AddrPortFrom(p.f.gateway(in), client.Port())
	}
	return src, netip.AddrPortFrom(in, p.bound.Port)
}

// handleEvents implements sockio.Handler.
func (p *published) HandleEvents(uint32) {
	if p.bound.Proto == "udp" {
		_ = p.sock.ReceiveAll(p.datagram) // an error is about some client that is gone
		return
	}
	for range 16 { // then others have their turn
		var fd int
		var sa unix.Sockaddr
		err := p.sock.Use(func(ln int) (err error) {
			fd, sa, err = unix.Accept4(ln, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err
		})
		switch {
		case err == nil:
			p.connect(fd, sockio.AddrPort(sa))
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			p.pause()
			return
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBADF):
			return
		} // others are about one client that is gone (accept(2), "Error handling")
	}
}

// pause leaves a listener alone for a moment: there is nothing to accept with, and it would be ready all the time.
func (p *published) pause() {
	_ = p.sock.Use(func(fd int) error { p.f.reactor.Remove(fd); return nil })
	p.f.mu.Lock()
	if !p.f.closed && !p.f.detaching {
		p.resume = time.AfterFunc(100*time.Millisecond, p.watchAgain) // which unbind and DetachFlows stop
	}
	p.f.mu.Unlock()
	p.f.cfg.Logger.Warn("no descriptors left for connections to a published port; they wait", "host", p.bound.Host, "limit", FileLimit())
}

// watchAgain is the end of a pause, unless the port was unbound or detached meanwhile: what waits is the next daemon's.
func (p *published) watchAgain() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.resume == nil {
		return
	}
	p.resume = nil
	_ = p.sock.Use(func(fd int) error { return p.f.reactor.Add(fd, p) })
}

// stayPaused ends a pause without the port being watched again. The caller holds f.mu.
func (p *published) stayPaused() {
	if p.resume != nil {
		p.resume.Stop()
		p.resume = nil
	}
}

// connect dials the container in the client's name; a refusal there is a reset here. It owns fd.
func (p *published) connect(fd int, client netip.AddrPort) {
	f := p.f
	src, dst := p.insideFor(client)
	fl := &flow{f: f, direction: "in", inside: dst, outside: src, hostSide: sockio.LocalAddr(fd)}
	if !f.addFlow(fl, fd) {
		_ = unix.Close(fd) // which resets it (sockio.SetTCP)
		return
	}
	inside, err := f.dialBypass(atOnce, dst, src, false)
	if err == nil {
		f.counters[countInbound].Add(1)
		f.counters[countBypassInbound].Add(1)
		fl.relay(inside, fd)
		return
	}
	// Whatever it was: what the gateway makes of it counts. A service may be bound to the interface itself.
	go p.dial(fl, fd)
}

// atOnce has ended: the reactor waits for nothing. A connection within a namespace is there when connect(2) returns.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// dial connects a flow by way of the gateway.
func (p *published) dial(fl *flow, fd int) {
	f := p.f
	if !f.acquireUse(fl.inside.Addr(), useDialling) {
		_ = unix.Close(fd)
		f.removeFlow(fl)
		return
	}
	memory, ok := f.claimBuffers(fl.inside.Addr())
	if !ok {
		f.releaseUse(fl.inside.Addr(), useDialling)
		_ = unix.Close(fd)
		f.removeFlow(fl)
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	in, err := f.dialInside(ctx, fl.outside, fl.inside)
	if errors.Is(err, unix.EADDRINUSE) { // the client has this port in use towards this container already, under a name that is now the same
		in, err = f.dialInside(ctx, netip.AddrPortFrom(fl.outside.Addr(), 0), fl.inside)
	}
	cancel()
	f.releaseUse(fl.inside.Addr(), useDialling)
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		_ = unix.Close(fd)
		memory.release()
		f.removeFlow(fl)
		return
	}
	f.counters[countInbound].Add(1)
	fl.relayConn(in, fd, memory)
}

// inboundKey is a client as a container knows it.
type inboundKey struct{ inside, client netip.AddrPort }

// clientKey is a client as the host knows it: its own address, and the host's that it speaks to.
type clientKey struct {
	from  netip.AddrPort
	local netip.Addr // zero where the port is bound to one address
}

// inboundUDP is a client of a published UDP port. Its replies leave by the port and address that it came in by.
type inboundUDP struct {
	mapping
	p       *published
	key     inboundKey
	client  clientKey
	to      sockio.RawAddr
	control []byte // chooses the address that replies leave by

	mu    sync.Mutex // guards batch
	batch sockio.TXBatch
}

// datagram carries a client's datagram to the container.
func (p *published) datagram(d sockio.Datagram) {
	f := p.f
	key := clientKey{d.From, d.Local}
	f.mu.Lock()
	in := p.clients[key]
	f.mu.Unlock()
	if in == nil {
		if in = p.newClient(key); in == nil {
			return // over the limit: lost, as in a full queue
		}
	}
	in.used()
	in.packetsIn.Add(d.Count())
	in.bytesIn.Add(uint64(d.Size))
	_ = f.cfg.Inside.WriteUDP(in.key.client, in.key.inside, d.Payload, d.Segment) // a datagram may be lost
}

func (p *published) newClient(client clientKey) *inboundUDP {
	f := p.f
	src, dst := p.insideFor(client.from)
	if !f.admit(dst.Addr(), useClients) {
		return nil
	}
	in := &inboundUDP{
		mapping: mapping{f: f, kind: useClients, owner: dst.Addr(), created: time.Now()},
		p:       p,
		key:     inboundKey{dst, src},
		client:  client,
		control: sockio.SourceControl(client.local),
	}
	to := client.from
	if p.options.Dual { // an IPv6 socket speaks of IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2)
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	in.to.Set(to)
	in.used()
	f.mu.Lock()
	// Clients that share the gateway's address need ports of their own.
	for tries := 0; f.inbound[in.key] != nil && tries < 64; tries++ {
		in.key.client = netip.AddrPortFrom(src.Addr(), uint16(1024+rand.IntN(64512)))
	}
	if f.inbound[in.key] != nil {
		f.mu.Unlock()
		f.releaseUse(dst.Addr(), useClients)
		return nil
	}
	f.inbound[in.key] = in
	if p.clients == nil {
		p.clients = map[clientKey]*inboundUDP{}
	}
	p.clients[client] = in
	f.register(in)
	f.mu.Unlock()
	return in
}

// end ends the mapping. Ending it again does nothing.
func (in *inboundUDP) end() {
	in.f.mu.Lock()
	defer in.f.mu.Unlock()
	in.endLocked()
}

// endLocked is end; the caller holds f.mu.
func (in *inboundUDP) endLocked() {
	f := in.f
	if f.inbound[in.key] != in {
		return
	}
	delete(f.inbound, in.key)
	delete(in.p.clients, in.client)
	f.unregister(&in.mapping)
}

// replyPublished sends a container's datagram through the published port that its peer came in by.
func (f *Forwarder) replyPublished(d packet.Datagram) bool {
	f.mu.Lock()
	in := f.inbound[inboundKey{d.Src, d.Dst}]
	f.mu.Unlock()
	if in == nil {
		return false
	}
	in.answer()
	in.packetsOut.Add(sockio.Segments(len(d.Payload), d.Segment))
	in.bytesOut.Add(uint64(len(d.Payload)))
	in.send(d)
	return true
}

// send sends a reply, or adds it to the batch; one that cannot be sent is lost.
func (in *inboundUDP) send(d packet.Datagram) {
	in.mu.Lock()
	defer in.mu.Unlock()
	more := batchable(d)
	if !in.batch.Empty() {
		if more && in.batch.Add(d.Payload) {
			return
		}
		in.sendBatch()
	}
	if more {
		in.batch.Add(d.Payload)
		in.p.f.toFlush.add(in)
		return
	}
	_ = in.p.sock.Use(func(fd int) error { return sockio.SendSegments(fd, d.Payload, d.Segment, &in.to, in.control) })
}

// flush implements pendingFlush.
func (in *inboundUDP) flush() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.batch.Empty() {
		in.sendBatch()
	}
}

// sendBatch sends the batch. The caller holds in.mu.
func (in *inboundUDP) sendBatch() {
	_ = in.p.sock.Use(func(fd int) error { return in.batch.Send(fd, &in.to, in.control) })
	in.batch.Clear()
}
