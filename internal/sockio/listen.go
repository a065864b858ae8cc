package sockio

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const backlog = 4096

// ListenOptions are what a socket that is bound may be asked for besides its address.
type ListenOptions struct {
	Dual      bool   // one at [::] takes IPv4 as well (ipv6(7), IPV6_V6ONLY)
	Interface string // only what comes by this interface reaches it (socket(7), SO_BINDTODEVICE); "": all does
	FreeBind  bool   // the address may be nobody's yet (ip(7), IP_FREEBIND)
}

// ListenTCP makes a listening socket.
func ListenTCP(at netip.AddrPort, o ListenOptions) (fd int, err error) {
	fd, err = bound(at, unix.SOCK_STREAM, unix.SO_REUSEADDR, o)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// ListenUDP makes a bound UDP socket; the zero address of a family and port 0 leave both to the kernel.
func ListenUDP(at netip.AddrPort, o ListenOptions) (fd int, err error) {
	return bound(at, unix.SOCK_DGRAM, 0, o)
}

func bound(at netip.AddrPort, kind, option int, o ListenOptions) (int, error) {
	fd, err := unix.Socket(Family(at.Addr()), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if option != 0 {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1)
	}
	if err == nil && at.Addr().Is6() {
		only := 1
		if o.Dual {
			only = 0
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if err == nil && o.Interface != "" {
		err = unix.BindToDevice(fd, o.Interface)
	}
	if err == nil && o.FreeBind && at.Addr().Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	} else if err == nil && o.FreeBind {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
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
