package vmlink

import (
	"bytes"
	"net"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// This file has the system calls that package net would allocate memory for with each frame.

// peer is where a datagram guest receives.
type peer struct{ at atomic.Pointer[sockaddr] }

// sockaddr is struct sockaddr_un of <linux/un.h>, and how much of it counts.
type sockaddr struct {
	raw unix.RawSockaddrUnix
	len uint32
}

// pathOffset is where the path begins in struct sockaddr_un.
const pathOffset = uint32(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))

func (p *peer) get() *sockaddr { return p.at.Load() }

// set says where the guest is; a path that is too long, or empty, says nothing.
func (p *peer) set(path string) {
	a := &sockaddr{raw: unix.RawSockaddrUnix{Family: unix.AF_UNIX}}
	if path == "" || len(path) >= len(a.raw.Path) {
		return
	}
	copy(a.bytes(), path)
	a.len = pathOffset + uint32(len(path)) + 1 // with the byte 0 at the end, as the kernel gives it
	p.at.Store(a)
}

// update makes from the guest's place where it is another one, and says so. A sender without a name has none.
func (p *peer) update(from *sockaddr) bool {
	if from.len <= pathOffset || from.len > uint32(unsafe.Sizeof(from.raw)) || from.raw.Path[0] == 0 {
		return false
	}
	if old := p.at.Load(); old != nil && old.path() == from.path() {
		return false
	}
	copied := *from
	p.at.Store(&copied)
	return true
}

// path is the address as a path, which is valid as long as a is not changed.
func (a *sockaddr) path() string {
	b := a.bytes()[:a.len-pathOffset]
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// bytes is the path's memory.
func (a *sockaddr) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&a.raw.Path[0])), len(a.raw.Path))
}

// trySend sends a frame, to an address or, where it is nil, to who is connected; false: the receiver's queue is full.
// What cannot be sent for another reason is lost: the guest is gone, or will be noticed to be.
func trySend(conn *net.UnixConn, frame []byte, to *sockaddr) (done bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	var addr unsafe.Pointer
	var size uint32
	if to != nil {
		addr, size = unsafe.Pointer(&to.raw), to.len
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(addr), uintptr(size))
	}); err != nil {
		return true
	}
	return errno != unix.EAGAIN && errno != unix.ENOBUFS && errno != unix.EINTR
}

// packetReader reads records and datagrams.
type packetReader struct {
	from sockaddr
	msg  unix.Msghdr
	iov  [2]unix.Iovec
}

// read reads one frame: its Ethernet header to head and what follows to body. size is that of both, and longer where
// it was cut.
func (r *packetReader) read(fd uintptr, head, body []byte) (size int, errno syscall.Errno) {
	r.iov[0].Base, r.iov[1].Base = &head[0], &body[0]
	r.iov[0].SetLen(len(head))
	r.iov[1].SetLen(len(body))
	r.msg = unix.Msghdr{
		Name:    (*byte)(unsafe.Pointer(&r.from.raw)),
		Namelen: uint32(unsafe.Sizeof(r.from.raw)),
		Iov:     &r.iov[0],
	}
	r.msg.SetIovlen(len(r.iov))
	n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.msg)),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	r.from.len = r.msg.Namelen
	r.iov[0].Base, r.iov[1].Base = nil, nil
	return int(n), errno
}

// hungUp says whether the other end of a connection is closed.
func hungUp(conn *net.UnixConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		events, err := sockio.Ready(int(fd), unix.POLLRDHUP)
		gone = err == nil && events&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
