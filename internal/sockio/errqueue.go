package sockio

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
)

// QueueErrors makes the kernel keep the ICMP errors that answer a socket's datagrams (ip(7), IP_RECVERR), which it
// otherwise gives to connected sockets only. Where it refuses, they are lost.
func QueueErrors(fd int, v6 bool) {
	if v6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	}
}

// QueuedError is an error about a datagram that was sent: struct sock_extended_err, include/uapi/linux/errqueue.h.
type QueuedError struct {
	V6       bool       // the error is ICMPv6's
	Local    bool       // this kernel's own: the datagram is too long for the path
	Type     byte       // of the ICMP message; with Local, of the one that a router would send
	Code     byte       // of the same
	Info     uint32     // the MTU in bytes of a path that was too small
	Offender netip.Addr // who sent the ICMP message; the zero address: unknown
}

// ReadErrors hands each error that waits on the socket to f, with the destination and as much of the payload as the
// kernel kept, which is valid until f returns.
func (s *Socket) ReadErrors(f func(e QueuedError, to netip.AddrPort, payload []byte)) {
	data, oob := make([]byte, 512), make([]byte, 512)
	for {
		var n, oobn int
		var to unix.Sockaddr
		err := s.Use(func(fd int) (err error) {
			n, oobn, _, to, err = unix.Recvmsg(fd, data, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			return err
		})
		if err != nil {
			return
		}
		if e, ok := ParseError(oob[:oobn]); ok {
			f(e, AddrPort(to), data[:n])
		}
	}
}

// sizeofExtendedError is the structure's size in bytes; the offender's address follows it.
const sizeofExtendedError = 16

// ParseError finds a QueuedError in control messages.
func ParseError(oob []byte) (QueuedError, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return QueuedError{}, false
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < sizeofExtendedError {
			continue
		}
		if e, ok := parseExtended(m.Data, v6); ok {
			return e, true
		}
	}
	return QueuedError{}, false
}

// parseExtended reads the structure and the offender's address. False: it is no error about a packet.
func parseExtended(d []byte, v6 bool) (QueuedError, bool) {
	e := QueuedError{V6: v6, Type: d[5], Code: d[6], Info: binary.NativeEndian.Uint32(d[8:])}
	switch d[4] {
	case unix.SO_EE_ORIGIN_LOCAL:
		if unix.Errno(binary.NativeEndian.Uint32(d)) != unix.EMSGSIZE {
			return e, false
		}
		e.Local = true
		e.Type, e.Code = packet.TooBig.Type(v6)
		return e, true
	case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
	default:
		return e, false
	}
	if sa := d[sizeofExtendedError:]; !v6 && len(sa) >= 8 {
		e.Offender = netip.AddrFrom4([4]byte(sa[4:8]))
	} else if v6 && len(sa) >= 24 {
		e.Offender = netip.AddrFrom16([16]byte(sa[8:24]))
	}
	return e, true
}
