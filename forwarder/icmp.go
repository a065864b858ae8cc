package forwarder

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
)

// ttlControl is the control message that sends a datagram with a TTL, or hop limit.
func ttlControl(ttl uint8, v6 bool) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	level, kind := int32(unix.IPPROTO_IP), int32(unix.IP_TTL)
	if v6 {
		level, kind = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
	}
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(4)))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0):], uint32(ttl))
	return b
}

// hopLimit answers a packet that must not travel on with "time exceeded", as a router does (RFC 1812, 5.3.1).
func (f *Forwarder) hopLimit(p packet.Datagram) bool {
	if p.TTL > 1 || f.cfg.Inside.Owns(p.Dst.Addr()) {
		return false
	}
	f.sendError(p, packet.HopsExceeded)
	return true
}

// reject tells a container that its packet cannot go where it should.
func (f *Forwarder) reject(p packet.Datagram, why error) {
	switch {
	case errors.Is(why, errProhibited), errors.Is(why, unix.EACCES):
		f.sendError(p, packet.Prohibited)
	case errors.Is(why, unix.EHOSTUNREACH):
		f.sendError(p, packet.HostUnreachable)
	default:
		f.sendError(p, packet.NetUnreachable)
	}
}

// sendError answers a packet with an ICMP error of its family, in the gateway's name. Errors are never answered with
// errors, nor is what was sent to a group (RFC 1122, 3.2.2); netstack brings neither here.
func (f *Forwarder) sendError(p packet.Datagram, problem packet.Problem) {
	gw := f.gateway(p.Src.Addr())
	if !gw.IsValid() || len(p.Original) == 0 {
		return
	}
	_ = f.cfg.Inside.WriteICMP(gw, p.Src.Addr(), packet.ICMPError(problem, p.Src.Addr(), p.Original)) // it may be lost
}

// listenErrors makes the kernel keep the ICMP errors that answer a socket's datagrams (ip(7), IP_RECVERR), which it
// otherwise gives to connected sockets only. Where it refuses, they are lost.
func listenErrors(fd int, v6 bool) {
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	}
}

// readErrors hands each error that waits on a socket to f, with the payload that the kernel kept and its destination.
func (s *socket) readErrors(f func(e extendedError, to netip.AddrPort, payload []byte)) {
	data, oob := make([]byte, 512), make([]byte, 512)
	for {
		var n, oobn int
		var to unix.Sockaddr
		err := s.use(func(fd int) (err error) {
			n, oobn, _, to, err = unix.Recvmsg(fd, data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			return err
		})
		if err != nil {
			return
		}
		if e, ok := parseError(oob[:oobn]); ok {
			f(e, addrPortOf(to), data[:n])
		}
	}
}

// extendedError is struct sock_extended_err, include/uapi/linux/errqueue.h, as far as it is needed.
type extendedError struct {
	v6, local  bool // local: this kernel's own
	icmp, code byte
	info       uint32     // the MTU of a path that was too small
	offender   netip.Addr // who sent the error
}

// sizeofExtendedError is the structure's size in bytes; the offender's address follows it.
const sizeofExtendedError = 16

func parseError(oob []byte) (extendedError, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return extendedError{}, false
	}
	for _, m := range messages {
		d := m.Data
		isError := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR || m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !isError || len(d) < sizeofExtendedError {
			continue
		}
		e := extendedError{v6: m.Header.Level == unix.IPPROTO_IPV6, icmp: d[5], code: d[6], info: binary.NativeEndian.Uint32(d[8:])}
		switch d[4] {
		case unix.SO_EE_ORIGIN_LOCAL:
			if unix.Errno(binary.NativeEndian.Uint32(d)) != unix.EMSGSIZE {
				continue
			}
			e.local = true
			e.icmp, e.code = packet.TooBig.Type(e.v6)
			return e, true
		case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
		default:
			continue
		}
		if sa := d[sizeofExtendedError:]; !e.v6 && len(sa) >= 8 {
			e.offender = netip.AddrFrom4([4]byte(sa[4:8]))
		} else if e.v6 && len(sa) >= 24 {
			e.offender = netip.AddrFrom16([16]byte(sa[8:24]))
		}
		return e, true
	}
	return extendedError{}, false
}

// message is the beginning of the ICMP message that carries e.
func (e extendedError) message() []byte {
	m := []byte{e.icmp, e.code, 0, 0, 0, 0, 0, 0}
	if e.v6 {
		binary.BigEndian.PutUint32(m[4:], e.info)
	} else if kind, code := packet.TooBig.Type(false); e.icmp == kind && e.code == code {
		binary.BigEndian.PutUint16(m[6:], uint16(min(e.info, 0xffff))) // RFC 1191, section 4
	}
	return m
}

// from is in whose name the container hears of e: the router's that sent it, the gateway's where that was this machine,
// or the destination's where that is what answered.
func (e extendedError) from(f *Forwarder, to netip.Addr) netip.Addr {
	switch {
	case e.local:
		return f.gateway(to)
	case !e.offender.IsValid() || e.offender.IsLoopback() || e.offender.Is4() != to.Is4():
		return to
	}
	return e.offender
}

// passErrors gives the container the ICMP errors that wait on the association's socket.
func (a *association) passErrors() {
	a.sock.readErrors(func(e extendedError, to netip.AddrPort, payload []byte) {
		size := len(payload)
		if e.local {
			a.mu.Lock()
			to, size = a.sent.target, a.sent.size
			a.mu.Unlock()
		}
		if !to.IsValid() || to.Addr().Is4() != a.inside.Addr().Is4() || e.v6 == to.Addr().Is4() {
			return
		}
		to = a.known(to)
		_ = a.f.cfg.Inside.WriteICMP(e.from(a.f, to.Addr()), a.inside.Addr(), append(e.message(), packet.QuoteUDP(a.inside, to, size)...))
	})
}
