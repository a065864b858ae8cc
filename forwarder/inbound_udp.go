package forwarder

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
)

// inboundKey is a client as a container knows it.
type inboundKey struct{ inside, client netip.AddrPort }

// clientKey is a client as the host knows it: the port that it speaks to, its own address, and the host's.
type clientKey struct {
	port  *publish.Port
	from  netip.AddrPort
	local netip.Addr // zero where the port is bound to one address
}

// inboundUDP is a client of a published UDP port. Its replies leave by the port and address that it came in by.
type inboundUDP struct {
	mapping
	key     inboundKey
	client  clientKey
	to      sockio.RawAddr
	control []byte // chooses the address that replies leave by

	mu    sync.Mutex // guards batch
	batch sockio.TXBatch
}

// HandleDatagram implements publish.Handler: it carries a client's datagram to the container.
func (f *Forwarder) HandleDatagram(p *publish.Port, d sockio.Datagram) {
	key := clientKey{p, d.From, d.Local}
	f.mu.Lock()
	in := f.clients[key]
	f.mu.Unlock()
	if in == nil {
		if in = f.newClient(key); in == nil {
			return // over the limit: lost, as in a full queue
		}
	}
	in.used()
	in.packetsIn.Add(d.Count())
	in.bytesIn.Add(uint64(d.Size))
	_ = f.cfg.Inside.WriteUDP(in.key.client, in.key.inside, d.Payload, d.Segment) // a datagram may be lost
}

func (f *Forwarder) newClient(client clientKey) *inboundUDP {
	src, dst := f.insideFor(client.port, client.from)
	if !f.admit(dst.Addr(), useClients) {
		return nil
	}
	in := &inboundUDP{
		mapping: mapping{f: f, kind: useClients, owner: dst.Addr(), created: time.Now()},
		key:     inboundKey{dst, src},
		client:  client,
		control: sockio.SourceControl(client.local),
	}
	to := client.from
	if client.port.Dual() { // an IPv6 socket speaks of IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2)
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
	f.clients[client] = in
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
	delete(f.clients, in.client)
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
		in.f.toFlush.add(in)
		return
	}
	_ = in.client.port.Use(func(fd int) error { return sockio.SendSegments(fd, d.Payload, d.Segment, &in.to, in.control) })
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
	_ = in.client.port.Use(func(fd int) error { return in.batch.Send(fd, &in.to, in.control) })
	in.batch.Clear()
}

// PortClosed implements publish.Handler: its clients end.
func (f *Forwarder) PortClosed(p *publish.Port) {
	if p.Bound().Proto != ports.UDP {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, in := range f.clients {
		if key.port == p {
			in.endLocked()
		}
	}
}
