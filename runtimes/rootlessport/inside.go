package rootlessport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

// inside is a thread in the container's network namespace.
type inside struct {
	calls chan func(*bypass.Sockets)
}

// enter starts the thread. It stays until the process ends.
func enter(path string) (*inside, error) {
	in := &inside{make(chan func(*bypass.Sockets))}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nothing else may run in this namespace
		f, err := sandbox.OpenNetNS(path)
		if err == nil {
			err = os.NewSyscallError("setns", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
			_ = f.Close()
		}
		entered <- err
		if err != nil {
			return
		}
		sockets := new(bypass.Sockets)
		for f := range in.calls {
			f(sockets)
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("network namespace of the container: %w", err)
	}
	return in, nil
}

// socket makes an unconnected socket in the namespace: in the client's name (transparent), or a plain one.
func (in *inside) socket(proto string, ipv6, transparent bool) (fd int, err error) {
	done := make(chan struct{})
	in.calls <- func(s *bypass.Sockets) {
		defer close(done)
		if !transparent {
			fd, err = plainSocket(proto, ipv6)
			return
		}
		direction := bypass.Inbound
		if proto == "udp" {
			direction = bypass.Datagram
		}
		var fds []int
		if fds, err = s.Make(direction, ipv6, 1); err == nil {
			fd = fds[0]
		}
	}
	<-done
	return fd, err
}

func plainSocket(proto string, ipv6 bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if ipv6 {
		family = unix.AF_INET6
	}
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// dial connects to a port of the container, in the client's name where that can be had. An invalid client is nobody's.
func (in *inside) dial(proto string, client, to netip.AddrPort) (net.Conn, error) {
	if client.IsValid() && client.Addr().Is4() == to.Addr().Is4() && !to.Addr().IsLoopback() {
		c, err := in.connect(proto, client, to)
		if err == nil || errors.Is(err, unix.ECONNREFUSED) {
			return c, err
		}
	}
	return in.connect(proto, netip.AddrPort{}, to)
}

func (in *inside) connect(proto string, client, to netip.AddrPort) (net.Conn, error) {
	fd, err := in.socket(proto, to.Addr().Is6(), client.IsValid())
	if err != nil {
		return nil, err
	}
	if client.IsValid() {
		err = unix.Bind(fd, sockio.Sockaddr(client))
	}
	if err == nil {
		err = connect(fd, to)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), proto)
	defer f.Close()
	return net.FileConn(f)
}

// connectTimeout is how long a container may take to accept, in milliseconds. It answers at once, unless its queue is
// full.
const connectTimeout = 10_000

// connect connects a non-blocking socket, and waits for that.
func connect(fd int, to netip.AddrPort) error {
	err := unix.Connect(fd, sockio.Sockaddr(to))
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(poll, connectTimeout)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		default:
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && code != 0 {
				err = unix.Errno(code)
			}
			return err
		}
	}
}
