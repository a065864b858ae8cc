package forwarder

import (
	"math/rand/v2"
	"net/netip"
	"sync"

	"github.com/usernet/usernet/forwarder/mapping"
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
	mapping.Mapping
	f       *Forwarder
	key     inboundKey
	client  clientKey
	to      sockio.RawAddr
	control []byte // chooses the address that replies leave by

	mu    sync.Mutex // guards batch
	batch sockio.TXBatch

	direct      bool // its datagrams pass through sock, a socket of the container's namespace, instead of the gateway
	sock        sockio.Socket
	descriptors claim
	whole       struct{ in, out []byte } // of datagrams that came in pieces; used by the reactors' goroutines
}

// clients are the live inboundUDP by what the host knows of them.
type clients struct {
	sync.Mutex
	byKey map[clientKey]*inboundUDP
}

func (c *clients) get(k clientKey) *inboundUDP {
	c.Lock()
	defer c.Unlock()
	return c.byKey[k]
}

func (c *clients) add(in *inboundUDP) {
	c.Lock()
	defer c.Unlock()
	c.byKey[in.client] = in
}

func (c *clients) remove(in *inboundUDP) {
	c.Lock()
	defer c.Unlock()
	if c.byKey[in.client] == in {
		delete(c.byKey, in.client)
	}
}

// HandleDatagram implements publish.Handler: it carries a client's datagram to the container.
func (f *Forwarder) HandleDatagram(p *publish.Port, d sockio.Datagram) {
	if d.Lost != 0 {
		f.counters[countPublishedLost].Add(uint64(d.Lost))
	}
	key := clientKey{p, d.From, d.Local}
	in := f.clients.get(key)
	if in == nil {
		if in = f.newClient(key); in == nil {
			return // over the limit: lost, as in a full queue
		}
	}
	in.Used()
	in.PacketsIn.Add(d.Count())
	in.BytesIn.Add(uint64(d.Size))
	if in.direct {
		in.sendDirect(d)
		return
	}
	_ = f.cfg.Inside.WriteUDP(in.key.client, in.key.inside, d.Payload, d.GSOSize) // a datagram may be lost
}

// keyTries is how many ports of the gateway's address are tried for a client that shares it.
const keyTries = 64

// newClient makes the mapping of a client; nil: there can be none. The goroutine of the port's reactor alone makes
// them.
func (f *Forwarder) newClient(client clientKey) *inboundUDP {
	direct := f.cfg.LoopbackDatagrams != nil && client.from.Addr().Unmap().IsLoopback()
	src, dst := f.insideFor(client.port, client.from)
	if direct {
		src, dst = loopbackEnds(client)
	}
	key := func(in *inboundUDP, try int) (inboundKey, bool) {
		if try > 0 { // clients that share the gateway's address need ports of their own
			in.key.client = netip.AddrPortFrom(src.Addr(), uint16(1024+rand.IntN(64512)))
		}
		return in.key, try <= keyTries
	}
	in, made, _ := f.inbound.MakeFree(dst.Addr(), key, func() (*inboundUDP, error) {
		in := &inboundUDP{
			f:       f,
			key:     inboundKey{dst, src},
			client:  client,
			control: sockio.SourceControl(client.local),
			direct:  direct,
		}
		if direct {
			if err := in.openDirect(); err != nil {
				return nil, err
			}
		}
		to := client.from
		if client.port.Dual() { // an IPv6 socket speaks of IPv4 addresses as mapped ones (RFC 4291, 2.5.5.2)
			to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
		}
		in.to.Set(to)
		f.clients.add(in) // which Close undoes, whatever becomes of it
		return in, nil
	})
	if !made {
		return nil
	}
	if direct && in.sock.Use(func(fd int) error { return f.reactor.Add(fd, in) }) != nil {
		f.inbound.End(in) // or it was ended at once
		return nil
	}
	return in
}

// Close implements mapping.Entry.
func (in *inboundUDP) Close() {
	in.f.clients.remove(in)
	in.sock.Close(in.f.reactor)
	in.descriptors.release()
}

// PortClosed implements publish.Handler: its clients end.
func (f *Forwarder) PortClosed(p *publish.Port) {
	if p.Bound().Proto == ports.UDP {
		f.inbound.EndAll(func(in *inboundUDP) bool { return in.client.port == p })
	}
}

// replyPublished sends a container's datagram through the published port that its peer came in by.
func (f *Forwarder) replyPublished(d packet.Datagram) bool {
	in := f.inbound.Get(inboundKey{d.Src, d.Dst})
	if in == nil {
		return false
	}
	in.Answer()
	in.PacketsOut.Add(sockio.Segments(len(d.Payload), d.GSOSize))
	in.BytesOut.Add(uint64(len(d.Payload)))
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
	_ = in.client.port.Use(
		func(fd int) error { return sockio.SendSegments(fd, d.Payload, d.GSOSize, &in.to, in.control) },
	)
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
