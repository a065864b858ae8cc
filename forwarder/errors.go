package forwarder

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listenErrors makes the kernel keep the ICMP errors that answer a socket's datagrams (ip(7), IP_RECVERR), which it
// otherwise gives to connected sockets only.
func listenErrors(pc *net.UDPConn, v6 bool) {
	raw, err := pc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if v6 {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		} else {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		}
	})
}

// passErrors gives the container the ICMP errors that wait on the association's socket, and says whether there were any.
func (a *association) passErrors() bool {
	raw, err := a.pc.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	_ = raw.Control(func(fd uintptr) {
		data, oob := make([]byte, 64), make([]byte, 512)
		for {
			_, oobn, _, to, err := unix.Recvmsg(int(fd), data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			found = true
			if e, ok := icmpError(oob[:oobn]); ok {
				a.passError(e, addrPortOf(to))
			}
		}
	})
	return found
}

// extendedError is struct sock_extended_err, include/uapi/linux/errqueue.h, as far as it is needed.
type extendedError struct {
	v6         bool
	icmp, code byte
	info       uint32     // the MTU of a path that was too small
	offender   netip.Addr // who sent the error
}

// sizeofExtendedError is the structure's size in bytes; the offender's address follows it.
const sizeofExtendedError = 16

func icmpError(oob []byte) (extendedError, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return extendedError{}, false
	}
	for _, m := range messages {
		d := m.Data
		if len(d) < sizeofExtendedError || d[4] != unix.SO_EE_ORIGIN_ICMP && d[4] != unix.SO_EE_ORIGIN_ICMP6 {
			continue
		}
		e := extendedError{v6: d[4] == unix.SO_EE_ORIGIN_ICMP6, icmp: d[5], code: d[6], info: binary.NativeEndian.Uint32(d[8:])}
		if sa := d[sizeofExtendedError:]; !e.v6 && len(sa) >= 8 {
			e.offender = netip.AddrFrom4([4]byte(sa[4:8]))
		} else if e.v6 && len(sa) >= 24 {
			e.offender = netip.AddrFrom16([16]byte(sa[8:24]))
		}
		return e, true
	}
	return extendedError{}, false
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// passError builds the ICMP error that the container would have got without a gateway between, quoting the datagram
// that it answers (RFC 792, RFC 4443): its IP header and the UDP header.
func (a *association) passError(e extendedError, to netip.AddrPort) {
	if !to.IsValid() || to.Addr().Is4() != a.inside.Addr().Is4() {
		return
	}
	offender := e.offender
	if to.Addr().IsLoopback() && a.loopback.IsValid() {
		to = netip.AddrPortFrom(a.loopback, to.Port())
	}
	if !offender.IsValid() || offender.IsLoopback() || offender.Is4() != to.Addr().Is4() {
		offender = to.Addr()
	}
	m := []byte{e.icmp, e.code, 0, 0, 0, 0, 0, 0}
	if e.v6 {
		binary.BigEndian.PutUint32(m[4:], e.info)
	} else if e.icmp == 3 && e.code == 4 {
		binary.BigEndian.PutUint16(m[6:], uint16(e.info))
	}
	_ = a.f.cfg.Inside.WriteICMP(offender, a.inside.Addr(), append(m, quoteUDP(a.inside, to)...))
}

// quoteUDP is the beginning of an empty datagram from src to dst.
func quoteUDP(src, dst netip.AddrPort) []byte {
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], 8)
	if src.Addr().Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(h[2:], 28)
		s, d := src.Addr().As4(), dst.Addr().As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		return append(h, udp...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, unix.IPPROTO_UDP, 64
	binary.BigEndian.PutUint16(h[4:], 8)
	s, d := src.Addr().As16(), dst.Addr().As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	return append(h, udp...)
}
