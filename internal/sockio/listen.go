package sockio

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const backlog = 4096

// ListenTCP makes a listening socket. dual lets one at [::] take IPv4 as well (ipv6(7), IPV6_V6ONLY).
func ListenTCP(at netip.AddrPort, dual bool) (fd int, err error) {
	fd, err = bound(at, unix.SOCK_STREAM, unix.SO_REUSEADDR, dual)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// ListenUDP makes a bound UDP socket; the zero address of a family and port 0 leave both to the kernel. dual is as with
// ListenTCP.
func ListenUDP(at netip.AddrPort, dual bool) (fd int, err error) {
	return bound(at, unix.SOCK_DGRAM, 0, dual)
}

func bound(at netip.AddrPort, kind, option int, dual bool) (int, error) {
	fd, err := unix.Socket(Family(at.Addr()), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
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
		err = unix.Bind(fd, Sockaddr(at))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// IsDual says whether a socket at [::] takes IPv4 as well.
func IsDual(fd int) bool {
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && only == 0
}
