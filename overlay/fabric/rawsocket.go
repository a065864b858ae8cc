package fabric

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// This file has the system calls of the hot path, and the kernel's structs that they take. Both calls are non-blocking
// and raw: they copy and return, and telling Go's scheduler about each costs as much as a small datagram.

// rawAddr is a struct sockaddr_in or sockaddr_in6.
type rawAddr struct {
	bytes [unix.SizeofSockaddrInet6]byte
	n     uint32
}

func newRawAddr(a netip.AddrPort) rawAddr {
	var r rawAddr
	binary.BigEndian.PutUint16(r.bytes[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(r.bytes[:], unix.AF_INET)
		ip := a.Addr().As4()
		copy(r.bytes[4:], ip[:])
		r.n = unix.SizeofSockaddrInet4
		return r
	}
	binary.NativeEndian.PutUint16(r.bytes[:], unix.AF_INET6)
	ip := a.Addr().As16()
	copy(r.bytes[8:], ip[:])
	r.n = unix.SizeofSockaddrInet6
	return r
}

// addrPort reads it. It is the zero value for another family.
func (r *rawAddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(r.bytes[2:])
	switch binary.NativeEndian.Uint16(r.bytes[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(r.bytes[4:8])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(r.bytes[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

// mmsghdr is struct mmsghdr of <sys/socket.h>.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received
}

const (
	rxMessages = 16      // datagrams, or joined ones, that one call receives
	rxSize     = 1 << 16 // of each, in bytes: the largest that UDP has
	rxControl  = 128     // control messages of each: UDP_GRO, and IP_PKTINFO or IPV6_PKTINFO
)

// rxBatch is where one recvmmsg puts what it receives.
type rxBatch struct {
	msgs    [rxMessages]mmsghdr
	iov     [rxMessages]unix.Iovec
	addrs   [rxMessages]rawAddr
	control [rxMessages][rxControl]byte
	buf     []byte
	n       int // messages that are there
}

func newRxBatch() *rxBatch {
	b := &rxBatch{buf: make([]byte, rxMessages*rxSize)}
	for i := range b.msgs {
		b.iov[i].Base = &b.buf[i*rxSize]
		b.iov[i].SetLen(rxSize)
		h := &b.msgs[i].hdr
		h.Iov = &b.iov[i]
		h.SetIovlen(1)
		h.Name = &b.addrs[i].bytes[0]
		h.Control = &b.control[i][0]
	}
	return b
}

// receive reads what is there; EAGAIN where nothing is.
func (b *rxBatch) receive(fd uintptr) syscall.Errno {
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		b.msgs[i].hdr.SetControllen(rxControl)
	}
	for {
		n, _, errno := syscall.RawSyscall6(
			unix.SYS_RECVMMSG,
			fd,
			uintptr(unsafe.Pointer(&b.msgs[0])),
			rxMessages,
			unix.MSG_DONTWAIT,
			0,
			0,
		)
		if errno == unix.EINTR {
			continue
		}
		b.n = 0
		if errno == 0 {
			b.n = int(n)
		}
		return errno
	}
}

// message is what was received at i: its bytes, and how long each datagram in it is; the last may be shorter. to is the
// address of this host that it came to.
func (b *rxBatch) message(i int) (data []byte, size int, to netip.Addr) {
	data = b.buf[i*rxSize : i*rxSize+int(b.msgs[i].n)]
	size = len(data)
	c := b.control[i][:min(int(b.msgs[i].hdr.Controllen), rxControl)]
	for len(c) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(c) {
			break
		}
		value := c[unix.SizeofCmsghdr:n]
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(value) >= 4:
			if n := int(binary.NativeEndian.Uint32(value)); n > 0 {
				size = n
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(value) >= unix.SizeofInet4Pktinfo:
			to = netip.AddrFrom4([4]byte(value[8:12])) // ipi_addr
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(value) >= unix.SizeofInet6Pktinfo:
			to = netip.AddrFrom16([16]byte(value[:16]))
		}
		c = c[min((n+7)&^7, len(c)):] // CMSG_ALIGN
	}
	return data, size, to
}

// source is an address of this host that datagrams leave from.
type source struct {
	addr netip.Addr
	info []byte      // the control message that says so
	gone atomic.Bool // the kernel does not take it, or it may be the wrong one: the kernel chooses
}

// current is the address that datagrams leave from; invalid: the kernel chooses.
func (s *source) current() netip.Addr {
	if s == nil || s.gone.Load() {
		return netip.Addr{}
	}
	return s.addr
}

func newSource(a netip.Addr) *source { return &source{addr: a, info: sockio.SourceControl(a)} }

// segmentControl is the control message of UDP_SEGMENT, aligned as the kernel wants it.
type segmentControl struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
}

// sendMessage is one sendmsg. Its closure is made once, so that sending allocates nothing.
type sendMessage struct {
	hdr     unix.Msghdr
	control struct { // without gaps
		seg segmentControl
		src [40]byte // source.info
	}
	call  func(fd uintptr)
	errno syscall.Errno
}

func (m *sendMessage) prepare() {
	m.call = m.sendmsg
	seg := &m.control.seg
	seg.hdr.Level, seg.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	seg.hdr.SetLen(unix.SizeofCmsghdr + 2)
}

// sendmsg sends. An error that the socket had from before, of another datagram (IP_RECVERR), is not this one's: it goes
// with being returned, and the call is repeated.
func (m *sendMessage) sendmsg(fd uintptr) {
	const attempts = 3
	for range attempts {
		_, _, m.errno = syscall.RawSyscall(
			unix.SYS_SENDMSG,
			fd,
			uintptr(unsafe.Pointer(&m.hdr)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
		)
		switch m.errno {
		case unix.EINTR,
			unix.ECONNREFUSED,
			unix.EHOSTUNREACH,
			unix.ENETUNREACH,
			unix.EHOSTDOWN,
			unix.EPROTO,
			unix.EACCES,
			unix.ENOPROTOOPT:
			continue
		}
		return
	}
}

// send sends iov to a destination, cut in datagrams of size bytes; 0: it is one. It leaves from the destination's
// source, as long as the kernel takes that.
func (m *sendMessage) send(to *destination, iov []unix.Iovec, size int) syscall.Errno {
	from := to.from
	if !from.current().IsValid() {
		from = nil
	}
	errno := m.sendFrom(to, from, iov, size)
	if from != nil && (errno == unix.EINVAL || errno == unix.ENETUNREACH || errno == unix.EADDRNOTAVAIL) {
		again := m.sendFrom(to, nil, iov, size)
		if again != errno { // it was not for the size
			from.gone.Store(true)
		}
		errno = again
	}
	return errno
}

func (m *sendMessage) sendFrom(to *destination, from *source, iov []unix.Iovec, size int) syscall.Errno {
	m.hdr = unix.Msghdr{Name: &to.raw.bytes[0], Namelen: to.raw.n, Iov: &iov[0]}
	m.hdr.SetIovlen(len(iov))
	c := &m.control
	switch {
	case from != nil && size > 0:
		c.seg.size = uint16(size)
		m.hdr.Control = (*byte)(unsafe.Pointer(c))
		m.hdr.SetControllen(int(unsafe.Sizeof(c.seg)) + copy(c.src[:], from.info))
	case from != nil:
		m.hdr.Control = &c.src[0]
		m.hdr.SetControllen(copy(c.src[:], from.info))
	case size > 0:
		c.seg.size = uint16(size)
		m.hdr.Control = (*byte)(unsafe.Pointer(c))
		m.hdr.SetControllen(int(unsafe.Sizeof(c.seg)))
	}
	s := to.sock
	for range sendWaits {
		if err := s.raw.Control(m.call); err != nil {
			m.errno = unix.EBADF
		}
		if m.errno != unix.EAGAIN && m.errno != unix.ENOBUFS {
			break
		}
		waitWritable(s)
	}
	m.hdr = unix.Msghdr{}
	return m.errno
}

// The socket's buffer being full holds the sender up, as a network card's queue does, for so long at most.
const (
	sendWaits  = 4
	sendWaitMS = 5
)

func waitWritable(s *socket) {
	_ = s.raw.Control(func(fd uintptr) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, sendWaitMS)
	})
}
