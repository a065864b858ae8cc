package forwarder

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
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

// release takes the socket off the reactor and returns its descriptor, which is the caller's then; -1 if it was closed.
func (s *socket) release(r *reactor) (fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		r.remove(s.fd)
	}
	fd, s.fd = s.fd, -1
	return fd
}

// setFragment has the kernel fragment what it may, and refuse what it may not (ip(7), IP_MTU_DISCOVER).
func (s *socket) setFragment(fd int, p packet.Datagram) {
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
