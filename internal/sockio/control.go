package sockio

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MergeDatagrams lets the kernel hand over several datagrams of one sender at once (udp(7), UDP_GRO). Where it cannot,
// they come one by one.
func MergeDatagrams(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) }

// CountLost has the kernel say how many datagrams for fd, the socket's descriptor, it throws away from now on, as where
// the queue is full (socket(7), SO_RXQ_OVFL): Datagram.Lost. To it, datagrams that were sent together (udp(7),
// UDP_SEGMENT) are one.
func (s *Socket) CountLost(fd int) {
	var info [9]uint32 // SK_MEMINFO_VARS of the kernel's include/uapi/linux/sock_diag.h
	const drops = 8    // SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		s.lost.Store(info[drops])
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
}

// TellLocal makes a wildcard socket say which of the host's addresses a datagram was for (ip(7), IP_PKTINFO):
// Datagram.Local.
func TellLocal(fd int, v6 bool) error {
	if v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// SourceControl is the control message that sends a datagram in the name of a local address; nil for the zero address.
func SourceControl(local netip.Addr) []byte {
	switch {
	case !local.IsValid():
		return nil
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}

// TTLControl is the control message that sends a datagram with a TTL, or hop limit.
func TTLControl(ttl uint8, v6 bool) []byte {
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
