package forwarder

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/mapping"
	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// association is the host socket of one container source address and port: the same for every destination (RFC 4787
// REQ-1), open to replies from anywhere (REQ-8).
type association struct {
	mapping.Mapping
	f           *Forwarder
	inside      netip.AddrPort
	sock        sockio.Socket
	descriptors claim
	hostSide    netip.AddrPort
	aliased     atomic.Bool   // aliases has something
	lost        atomic.Uint64 // datagrams for the container that were lost at sock, at least

	mu      sync.Mutex // guards what follows, which sending uses
	outside netip.AddrPort
	to      sockio.RawAddr
	aliases map[netip.AddrPort]netip.AddrPort // from targets to what the container calls them, where that is another
	ttl     uint8                             // that control is for
	control []byte                            // sets the TTL of datagrams whose own is not the default
	sent    struct {
		target netip.AddrPort
		size   int
	} // the datagram that a local error is about
	batch sockio.TXBatch
	first batchHead
}

// HandleUDP sends a container's datagram on.
func (f *Forwarder) HandleUDP(p packet.Datagram) bool {
	if f.replyPublished(p) {
		return true
	}
	if f.hopLimit(p) {
		return true
	}
	target, err := f.hostTarget(p.Src.Addr(), unix.IPPROTO_UDP, p.Dst)
	if err != nil {
		f.reject(p, err)
		return true
	}
	if faults.Enabled {
		f.mu.Lock()
		faults.Check(faults.Locked, p.Payload)
		f.mu.Unlock()
	}
	a := f.udp.Get(p.Src)
	if a == nil {
		if a = f.associate(p, target); a == nil {
			return true // over the limit: lost, as in a full queue
		}
	}
	if dns := p.Dst.Port() == 53; dns != a.Brief() && (!dns || a.PacketsOut.Load() == 0) {
		a.SetBrief(dns)
	}
	a.Used()
	a.PacketsOut.Add(sockio.Segments(len(p.Payload), p.GSOSize))
	a.BytesOut.Add(uint64(len(p.Payload)))
	if err := a.send(p, target); err != nil {
		f.reject(p, err)
	}
	return true
}

// send sends a datagram as the container sent it: with its TTL, less the hop that the gateway is, and whole where it
// must not be fragmented.
func (a *association) send(p packet.Datagram, target netip.AddrPort) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	more := batchable(p)
	if !a.batch.Empty() {
		if more && a.outside == p.Dst && a.first.packet.DontFragment == p.DontFragment && a.batch.Add(p.Payload) {
			return nil
		}
		a.sendBatch()
	}
	if a.outside != p.Dst {
		a.outside = p.Dst
		a.to.Set(target)
		if target != p.Dst {
			a.alias(target, p.Dst)
		}
	}
	if more {
		a.first.keep(p)
		a.batch.Add(p.Payload)
		a.f.toFlush.add(a)
		return nil
	}
	a.sent.target, a.sent.size = p.Dst, len(p.Payload)
	var control []byte
	if p.TTL != packet.DefaultTTL {
		if a.ttl != p.TTL {
			a.ttl, a.control = p.TTL, sockio.TTLControl(p.TTL-1, p.Src.Addr().Is6())
		}
		control = a.control
	}
	return a.sock.Use(func(fd int) error {
		a.sock.SetFragment(fd, p.DontFragment, p.Src.Addr().Is6())
		return sendAgain(func() error { return sockio.SendSegments(fd, p.Payload, p.GSOSize, &a.to, control) })
	})
}

// sendAgain sends, and once more where the error may be that of an earlier datagram, which is on the error queue. It
// returns the errors that the container is to hear of.
func sendAgain(send func() error) error {
	err := send()
	if err == nil || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EAGAIN) {
		return nil // too long: the error queue says how long it may be; no room: lost, as in a full queue
	}
	if err = send(); errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) { // a packet filter of the host's
		return err
	}
	return nil
}

// flush implements pendingFlush.
func (a *association) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.batch.Empty() {
		a.sendBatch()
	}
}

// sendBatch sends the batch. The caller holds a.mu.
func (a *association) sendBatch() {
	p := a.first.packet
	a.sent.target, a.sent.size = p.Dst, a.batch.Size()
	err := a.sock.Use(func(fd int) error {
		a.sock.SetFragment(fd, p.DontFragment, p.Src.Addr().Is6())
		return sendAgain(func() error { return a.batch.Send(fd, &a.to, nil) })
	})
	a.batch.Clear()
	if err != nil && !errors.Is(err, unix.EBADF) { // the association is over
		a.f.reject(p, err)
	}
}

// associate returns the association of a datagram's source, and makes it where there is none; nil: there can be none.
func (f *Forwarder) associate(p packet.Datagram, target netip.AddrPort) *association {
	a, made, err := f.udp.Make(p.Src, p.Src.Addr(), func() (*association, error) {
		fd, err := f.openUDP(target.Addr())
		if err != nil {
			f.cfg.Logger.Debug("UDP association", "error", err)
			return nil, err
		}
		a := &association{f: f, inside: p.Src, hostSide: sockio.LocalAddr(fd)}
		a.sock.Open(fd)
		a.sock.CountLost(fd)
		var ok bool
		if a.descriptors, ok = f.claimMapping(p.Src.Addr(), f.udp.GiveUp, fd); !ok {
			a.Close()
			return nil, unix.EMFILE
		}
		return a, nil
	})
	if err != nil {
		return nil
	}
	if made {
		f.counters[countUDP].Add(1)
		if a.sock.Use(func(fd int) error { return f.reactor.Add(fd, a) }) != nil {
			f.udp.End(a) // or it was ended at once
			return nil
		}
	}
	return a
}

// openUDP makes a socket that can send to and receive from everywhere, towards a destination's family.
func (f *Forwarder) openUDP(to netip.Addr) (int, error) {
	local := netip.IPv4Unspecified()
	if to.Is6() {
		local = netip.IPv6Unspecified()
	}
	if out := f.outbound(to); out.IsValid() {
		local = out
	}
	fd, err := sockio.ListenUDP(netip.AddrPortFrom(local, 0), sockio.ListenOptions{})
	if err != nil {
		return -1, err
	}
	if ifc := f.outboundInterface(to); ifc != "" {
		if err := unix.BindToDevice(fd, ifc); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	sockio.QueueErrors(fd, to.Is6())
	sockio.MergeDatagrams(fd)
	return fd, nil
}

// Close implements mapping.Entry.
func (a *association) Close() {
	a.sock.Close(a.f.reactor)
	a.descriptors.release()
}

// HandleEvents implements sockio.Handler: datagrams for the container, and ICMP errors.
func (a *association) HandleEvents(events uint32) {
	if events&unix.EPOLLERR != 0 {
		a.passErrors()
	}
	if err := a.sock.ReceiveAll(a.reply); err != nil {
		a.passErrors()
	}
}

// reply carries a datagram from the outside to the container.
func (a *association) reply(d sockio.Datagram) {
	src := a.known(d.From)
	if faults.Enabled {
		faults.Check(faults.Reply, d.Payload[0])
	}
	a.Answer()
	a.PacketsIn.Add(d.Count())
	a.BytesIn.Add(uint64(d.Size))
	if d.Lost != 0 {
		a.lost.Add(uint64(d.Lost))
		a.f.counters[countUDPLost].Add(uint64(d.Lost))
	}
	_ = a.f.cfg.Inside.WriteUDP(src, a.inside, d.Payload, d.GSOSize) // a datagram may be lost
}

// maxAliases is how many of a gateway's ports an association remembers to have sent to.
const maxAliases = 64

// alias notes what the container calls a target. The caller holds a.mu.
func (a *association) alias(target, name netip.AddrPort) {
	if a.aliases == nil || len(a.aliases) >= maxAliases {
		a.aliases = map[netip.AddrPort]netip.AddrPort{}
	}
	a.aliases[target] = name
	a.aliased.Store(true)
}

// known is a peer as the container knows it: what it sent to, or the gateway in the place of the host's loopback.
func (a *association) known(from netip.AddrPort) netip.AddrPort {
	if a.aliased.Load() {
		a.mu.Lock()
		name, ok := a.aliases[from]
		a.mu.Unlock()
		if ok {
			return name
		}
	}
	if from.Addr().IsLoopback() {
		return netip.AddrPortFrom(a.f.gateway(a.inside.Addr()), from.Port())
	}
	return from
}
