package forwarder

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAddr is a socket address as the kernel takes it, kept where the sender is, so that sending allocates nothing.
type rawAddr struct {
	space unix.RawSockaddrInet6 // sockaddr_in fits as well
	size  uint32
}

func (r *rawAddr) set(a netip.AddrPort) {
	port := (*[2]byte)(unsafe.Pointer(&r.space.Port)) // of both structures at the same place
	if a.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.space))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
		r.size = unix.SizeofSockaddrInet4
	} else {
		r.space = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16()}
		r.size = unix.SizeofSockaddrInet6
	}
	binary.BigEndian.PutUint16(port[:], a.Port())
}

func (r *rawAddr) get() netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&r.space.Port))
	n := binary.BigEndian.Uint16(port[:])
	switch r.space.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&r.space))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), n)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(r.space.Addr).Unmap(), n)
	}
	return netip.AddrPort{}
}

// send sends one datagram without waiting; control messages may go with it.
func send(fd int, payload []byte, to *rawAddr, control []byte) error {
	var v unix.Iovec
	if len(payload) > 0 {
		v.Base = &payload[0]
		v.SetLen(len(payload))
	}
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to.space)), Namelen: to.size, Iov: &v}
	h.SetIovlen(1)
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	for {
		_, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// sendSegments sends several datagrams of segment bytes each, the last may be shorter, in one call where the kernel can
// (udp(7), UDP_SEGMENT). A segment of 0 makes it one.
func sendSegments(fd int, payload []byte, segment int, to *rawAddr, control []byte) error {
	if segment <= 0 || segment >= len(payload) {
		return send(fd, payload, to, control)
	}
	var space struct {
		_     [0]uint64 // aligned as the kernel wants control messages
		bytes [128]byte // other control messages are few and small
	}
	n := copy(space.bytes[:len(space.bytes)-segmentSpace], control)
	if n == len(control) {
		c := space.bytes[n : n+segmentSpace]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.SizeofCmsghdr + 2)
		binary.NativeEndian.PutUint16(c[unix.SizeofCmsghdr:], uint16(segment))
		if err := send(fd, payload, to, space.bytes[:n+segmentSpace]); err == nil || errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	var first error
	for len(payload) > 0 {
		n := min(segment, len(payload))
		if err := send(fd, payload[:n], to, control); err != nil && first == nil {
			first = err
		}
		payload = payload[n:]
	}
	return first
}

// segmentSpace is the space that the control message of UDP_SEGMENT takes: CMSG_SPACE(2).
const segmentSpace = unix.SizeofCmsghdr + 8

// mergeDatagrams lets the kernel hand over several datagrams of one sender at once (udp(7), UDP_GRO). Where it cannot,
// they come one by one.
func mergeDatagrams(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) }

// tellLocal makes a wildcard socket say which of the host's addresses a datagram was for (ip(7), IP_PKTINFO).
func tellLocal(fd int, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// sourceControl is the control message that sends a datagram in the name of a local address; nil for the zero address.
func sourceControl(local netip.Addr) []byte {
	switch {
	case !local.IsValid():
		return nil
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
