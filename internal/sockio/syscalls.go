package sockio

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of this file are raw: the scheduler is not told of them. On non-blocking sockets they do not wait,
// and telling costs more than most of them take; worse, a call in which the kernel delivers a handshake over the
// loopback interface takes some 40 µs, after which the runtime's monitor gives the thread's processor away.

// Connect connects a non-blocking socket. EINPROGRESS: it will be connected, see IsConnected and Reactor.WaitConnected.
func Connect(fd int, to netip.AddrPort) error { return withAddr(unix.SYS_CONNECT, fd, to) }

// Accept takes a connection from the queue of a non-blocking listener; EAGAIN where none waits there. The new socket is
// non-blocking too.
func Accept(listener int) (fd int, from netip.AddrPort, err error) {
	r := RawAddr{size: unix.SizeofSockaddrInet6}
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&r.space)),
		uintptr(unsafe.Pointer(&r.size)), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), r.AddrPort(), nil
}

// Bind gives a socket its own address.
func Bind(fd int, at netip.AddrPort) error { return withAddr(unix.SYS_BIND, fd, at) }

func withAddr(call uintptr, fd int, a netip.AddrPort) error {
	var r RawAddr
	r.Set(a)
	return errnoOf(syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&r.space)), uintptr(r.size)))
}

// LocalAddr is where a socket is bound; the zero AddrPort where that cannot be said.
func LocalAddr(fd int) netip.AddrPort {
	r, err := nameOf(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return r.AddrPort()
}

// IsConnected says whether a TCP socket has been connected, and still is.
func IsConnected(fd int) bool {
	_, err := nameOf(unix.SYS_GETPEERNAME, fd)
	return err == nil
}

// nameOf asks for one of a socket's addresses. Package unix asks for its protocol each time as well.
func nameOf(call uintptr, fd int) (r RawAddr, err error) {
	r.size = unix.SizeofSockaddrInet6
	_, _, errno := syscall.RawSyscall(
		call, uintptr(fd), uintptr(unsafe.Pointer(&r.space)), uintptr(unsafe.Pointer(&r.size)),
	)
	return r, errnoOf(0, 0, errno)
}

// SetOption sets an option of a socket that is a number.
func SetOption(fd, level, option, value int) error {
	v := int32(value)
	return setOption(fd, level, option, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

// SetLinger says what closing a TCP socket does with data that was not sent (socket(7), SO_LINGER): reset throws it
// away and resets the connection; else it is sent in the background.
func SetLinger(fd int, reset bool) error {
	var l unix.Linger
	if reset {
		l.Onoff = 1
	}
	return setOption(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&l), unsafe.Sizeof(l))
}

func setOption(fd, level, option int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := syscall.RawSyscall6(
		unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(value), size, 0,
	)
	return errnoOf(0, 0, errno)
}

// CloseWrite passes on that nothing more will be written to a connected socket.
func CloseWrite(fd int) error {
	return errnoOf(syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0))
}

// CloseSocket closes a socket which does not linger (SO_LINGER is off, or 0 seconds).
func CloseSocket(fd int) error { return errnoOf(syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)) }

// Read reads from a non-blocking descriptor. b is not empty. n is 0 with an error.
func Read(fd int, b []byte) (n int, err error) { return transfer(unix.SYS_READ, fd, b) }

// Write writes to a non-blocking descriptor. b is not empty. n is 0 with an error.
func Write(fd int, b []byte) (n int, err error) { return transfer(unix.SYS_WRITE, fd, b) }

func transfer(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// errnoOf is the error of a raw system call.
func errnoOf(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
