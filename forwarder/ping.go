package forwarder

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/mapping"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// echoHeader is the length in bytes of an ICMP echo message's header (RFC 792, RFC 4443).
const echoHeader = 8

// echoKey keeps identifiers of different containers apart.
type echoKey struct {
	src netip.Addr
	id  uint16
}

// pinger is the ping socket of one container's identifier (icmp(7), "ping sockets"); the kernel gives it an identifier
// of its own, which is replaced in replies.
type pinger struct {
	mapping.Mapping
	f           *Forwarder
	key         echoKey
	sock        sockio.Socket
	descriptors claim
	tooLong     atomic.Pointer[lastEcho]
}

// lastEcho is the request that was too long: what the kernel's error about it does not say.
type lastEcho struct {
	to     netip.Addr
	header [echoHeader]byte
	size   int
}

// HandleEcho sends a container's echo request on.
func (f *Forwarder) HandleEcho(p packet.Datagram) bool {
	if len(p.Payload) < echoHeader || f.hopLimit(p) {
		return true
	}
	proto := uint8(unix.IPPROTO_ICMP)
	if p.Src.Addr().Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	target, err := f.hostTarget(p.Src.Addr(), proto, netip.AddrPortFrom(p.Dst.Addr(), 0))
	if err != nil {
		f.reject(p, err)
		return true
	}
	key := echoKey{p.Src.Addr(), binary.BigEndian.Uint16(p.Payload[4:])}
	s := f.echo.Get(key)
	if s == nil {
		if s = f.newPinger(key, target.Addr()); s == nil {
			return true
		}
	}
	s.Used()
	s.PacketsOut.Add(1)
	var control []byte
	if p.TTL != packet.DefaultTTL {
		control = sockio.TTLControl(p.TTL-1, p.Src.Addr().Is6())
	}
	var to sockio.RawAddr
	to.Set(target)
	err = s.sock.Use(func(fd int) error {
		s.sock.SetFragment(fd, p.DontFragment, p.Src.Addr().Is6())
		err := sockio.Send(fd, p.Payload, &to, control)
		if errors.Is(err, unix.EMSGSIZE) {
			s.tooLong.Store(&lastEcho{p.Dst.Addr(), [echoHeader]byte(p.Payload), len(p.Payload)})
			return nil // the error queue says how long it may be
		}
		if err != nil { // it may be that of an earlier request, which is on the error queue
			err = sockio.Send(fd, p.Payload, &to, control)
		}
		return err
	})
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		f.reject(p, err)
	}
	return true
}

// newPinger returns the session with a key, and makes it where there is none; nil: there can be none.
func (f *Forwarder) newPinger(key echoKey, to netip.Addr) *pinger {
	s, made, err := f.echo.Make(key, key.src, func() (*pinger, error) {
		fd, err := f.openPing(to)
		if err != nil {
			return nil, err
		}
		s := &pinger{f: f, key: key}
		s.sock.Open(fd)
		var ok bool
		if s.descriptors, ok = f.claimMapping(key.src, f.echo.GiveUp, fd); !ok {
			s.Close()
			return nil, unix.EMFILE
		}
		return s, nil
	})
	if err != nil {
		return nil
	}
	if made {
		f.counters[countEcho].Add(1)
		if s.sock.Use(func(fd int) error { return f.reactor.Add(fd, s) }) != nil {
			f.echo.End(s) // or it was ended at once
			return nil
		}
	}
	return s
}

func (f *Forwarder) openPing(to netip.Addr) (int, error) {
	proto := unix.IPPROTO_ICMP
	if to.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(sockio.Family(to), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	if out := f.outbound(to); out.IsValid() {
		err = sockio.Bind(fd, netip.AddrPortFrom(out, 0))
	}
	if ifc := f.outboundInterface(to); err == nil && ifc != "" {
		err = unix.BindToDevice(fd, ifc)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	sockio.QueueErrors(fd, to.Is6())
	return fd, nil
}

// Close implements mapping.Entry.
func (s *pinger) Close() {
	s.sock.Close(s.f.reactor)
	s.descriptors.release()
}

// HandleEvents implements sockio.Handler: echo replies for the container, and ICMP errors.
func (s *pinger) HandleEvents(events uint32) {
	if events&unix.EPOLLERR != 0 {
		s.passErrors()
	}
	if err := s.sock.ReceiveAll(s.reply); err != nil {
		s.passErrors()
	}
}

func (s *pinger) reply(d sockio.Datagram) {
	src := d.From.Addr()
	if src.IsLoopback() {
		src = s.f.gateway(s.key.src)
	}
	for _, message := range d.Payload {
		if len(message) < echoHeader {
			continue
		}
		binary.BigEndian.PutUint16(message[4:], s.key.id)
		s.Answer()
		s.PacketsIn.Add(1)
		_ = s.f.cfg.Inside.WriteICMP(src, s.key.src, message) // a reply may be lost
	}
}

// passErrors gives the container the ICMP errors that answer its requests, with its own identifier in what they quote.
func (s *pinger) passErrors() {
	s.sock.ReadErrors(func(e sockio.QueuedError, to netip.AddrPort, payload []byte) {
		size := len(payload)
		if last := s.tooLong.Load(); e.Local && last != nil {
			header := last.header
			payload, size, to = header[:], last.size, netip.AddrPortFrom(last.to, 0)
		}
		if len(payload) < echoHeader || !to.IsValid() || to.Addr().Is4() != s.key.src.Is4() || e.V6 == to.Addr().Is4() {
			return
		}
		proto := byte(unix.IPPROTO_ICMP)
		if e.V6 {
			proto = unix.IPPROTO_ICMPV6
		}
		binary.BigEndian.PutUint16(payload[4:], s.key.id)
		quote := append(packet.QuoteIP(s.key.src, to.Addr(), proto, size), payload[:echoHeader]...)
		_ = s.f.cfg.Inside.WriteICMP(s.f.icmpSource(e, to.Addr()), s.key.src, append(icmpHeader(e), quote...))
	})
}
