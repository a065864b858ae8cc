package forwarder

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// loopbackEnds are a client at the host's loopback as it is to appear at that of the container's namespace, and the
// port there. The kernel of the namespace chooses the client's port anew.
func loopbackEnds(c clientKey) (src, dst netip.AddrPort) {
	src = netip.AddrPortFrom(c.from.Addr().Unmap(), c.from.Port())
	return src, netip.AddrPortFrom(loopback(src.Addr()), c.port.Bound().Port)
}

// openDirect connects a socket of the container's namespace to the port at its loopback. It is called before anybody
// else knows in.
func (in *inboundUDP) openDirect() error {
	fd, err := in.f.cfg.LoopbackDatagrams(in.key.inside.Addr().Is6())
	if err != nil {
		in.f.cfg.Logger.Debug("datagrams to a container's loopback", "error", err)
		return err
	}
	if err := sockio.Connect(fd, in.key.inside); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	sockio.MergeDatagrams(fd)
	var ok bool
	if in.descriptors, ok = in.f.claimMapping(in.key.inside.Addr(), in.f.inbound.GiveUp, fd); !ok {
		return errors.Join(unix.EMFILE, unix.Close(fd))
	}
	in.sock.Open(fd)
	in.sock.CountLost(fd)
	return nil
}

// sendDirect sends a client's datagram into the namespace. One that cannot be sent is lost, as where nobody listens.
func (in *inboundUDP) sendDirect(d sockio.Datagram) {
	payload := flat(d, &in.whole.in)
	_ = in.sock.Use(func(fd int) error { return sockio.SendSegments(fd, payload, d.GSOSize, &connected, nil) })
}

// HandleEvents implements sockio.Handler: replies of the namespace. An error says that nobody listens there (any more),
// and is gone once it has been read.
func (in *inboundUDP) HandleEvents(uint32) {
	_ = in.sock.ReceiveAll(func(d sockio.Datagram) {
		in.Answer()
		in.PacketsOut.Add(d.Count())
		in.BytesOut.Add(uint64(d.Size))
		if d.Lost != 0 {
			in.f.counters[countPublishedLost].Add(uint64(d.Lost))
		}
		payload := flat(d, &in.whole.out)
		_ = in.client.port.Use(
			func(fd int) error { return sockio.SendSegments(fd, payload, d.GSOSize, &in.to, in.control) },
		)
	})
}

// connected is the address of datagrams of a connected socket.
var connected sockio.RawAddr

// flat is a datagram's payload in one piece: in buf, where it is in several.
func flat(d sockio.Datagram, buf *[]byte) []byte {
	if len(d.Payload) == 1 {
		return d.Payload[0]
	}
	*buf = (*buf)[:0]
	for _, b := range d.Payload {
		*buf = append(*buf, b...)
	}
	return *buf
}
