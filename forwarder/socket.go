package forwarder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/stack"
)

// socket is a non-blocking descriptor. Its lock keeps users from one that was closed and given to somebody else.
type socket struct {
	mu sync.RWMutex
	fd int // -1 once closed

	fragment atomic.Int32 // its IP_MTU_DISCOVER, once set
}

// use calls f with the descriptor, which stays open meanwhile.
func (s *socket) use(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return unix.EBADF
	}
	return f(s.fd)
}

// close takes the socket off the reactor and closes it. Closing it again does nothing.
func (s *socket) close(r *reactor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return
	}
	r.remove(s.fd)
	_ = unix.Close(s.fd)
	s.fd = -1
}

// setFragment has the kernel fragment what it may, and refuse what it may not (ip(7), IP_MTU_DISCOVER).
func (s *socket) setFragment(fd int, p stack.Packet) {
	mode := unix.IP_PMTUDISC_WANT
	if p.DontFragment {
		mode = unix.IP_PMTUDISC_DO
	}
	if s.fragment.Swap(int32(mode)) == int32(mode) {
		return
	}
	if p.Src.Addr().Is4() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode)
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const backlog = 4096

// listenTCP makes a listening socket.
func listenTCP(at netip.AddrPort, dual bool) (int, error) {
	fd, err := bound(at, unix.SOCK_STREAM, unix.SO_REUSEADDR, dual)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// listenUDP makes a bound UDP socket; the zero address of a family and port 0 leave both to the kernel.
func listenUDP(at netip.AddrPort, dual bool) (int, error) {
	return bound(at, unix.SOCK_DGRAM, 0, dual)
}

// bound makes a socket; dual lets one at [::] take IPv4 as well (ipv6(7), IPV6_V6ONLY).
func bound(at netip.AddrPort, kind, option int, dual bool) (int, error) {
	fd, err := unix.Socket(family(at.Addr()), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if option != 0 {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1)
	}
	if err == nil && at.Addr().Is6() {
		only := 1
		if dual {
			only = 0
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// localAddr is where a socket is bound.
func localAddr(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPortOf(sa)
}

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

// maxDatagram is the largest UDP payload over IPv4, in bytes: 65535 - 20 - 8.
const maxDatagram = 65507

// batchSize is how many datagrams one system call reads at most. Eight are where the cost of the call itself is below a
// tenth of the rest.
const batchSize = 8

// mmsghdr is struct mmsghdr, include/linux/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// batch is the memory for reading several datagrams at once.
type batch struct {
	messages [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	from     [batchSize]rawAddr
	control  [batchSize][96]byte // pktinfo of either family and a segment size fit
	data     [batchSize][maxDatagram + 1]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// receive reads what is there, at most batchSize datagrams.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.messages {
		b.vectors[i].Base = &b.data[i][0]
		b.vectors[i].SetLen(len(b.data[i]))
		h := &b.messages[i].hdr
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&b.from[i].space)), Namelen: unix.SizeofSockaddrInet6, Iov: &b.vectors[i]}
		h.SetIovlen(1)
		h.Control = &b.control[i][0]
		h.SetControllen(len(b.control[i]))
	}
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// datagram is what one message brought. It is valid until the next receive.
type datagram struct {
	payload []byte
	segment int // if not 0, payload holds datagrams of that many bytes, the last may be shorter
	from    netip.AddrPort
	local   netip.Addr // whom it was sent to; the zero address unless the socket was told to say it
}

func (d *datagram) count() uint64 { return count(len(d.payload), d.segment) }

// count is how many datagrams of a segment's size there are in size bytes.
func count(size, segment int) uint64 {
	if segment <= 0 || segment >= size {
		return 1
	}
	return uint64((size + segment - 1) / segment)
}

// datagram is the i-th that was received.
func (b *batch) datagram(i int) datagram {
	d := datagram{payload: b.data[i][:b.messages[i].n], from: b.from[i].get()}
	n := b.messages[i].hdr.Controllen
	for c := b.control[i][:n]; len(c) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if int(h.Len) < unix.SizeofCmsghdr || int(h.Len) > len(c) {
			break
		}
		v := c[unix.SizeofCmsghdr:h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(v) >= unix.SizeofInet4Pktinfo:
			d.local = netip.AddrFrom4([4]byte(v[4:8])) // ipi_spec_dst: of the reply, an own address even for a broadcast
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(v) >= unix.SizeofInet6Pktinfo:
			d.local = netip.AddrFrom16([16]byte(v[:16]))
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(v) >= 4:
			d.segment = int(int32(binary.NativeEndian.Uint32(v)))
		}
		c = c[min(unix.CmsgSpace(len(v)), len(c)):]
	}
	return d
}

// receiveAll hands each waiting datagram to f, but no more than a few batches, so that others have their turn. The first
// error that is not "nothing there" is returned.
func (s *socket) receiveAll(f func(datagram)) error {
	b := batches.Get().(*batch)
	defer batches.Put(b)
	for range 4 {
		n := 0
		err := s.use(func(fd int) (err error) { n, err = b.receive(fd); return err })
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return err
		}
		for i := range n {
			f(b.datagram(i))
		}
		if n < batchSize {
			return nil
		}
	}
	return nil
}
