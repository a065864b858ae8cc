package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// socket is one UDP socket, of one address family.
type socket struct {
	v6    bool
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
}

// socketBuffer is what is asked of the kernel for each direction, in bytes; it gives less (net.core.rmem_max, 212,992
// by default). A super-datagram of 64 KiB counts with about twice its size.
const socketBuffer = 4 << 20

// listen opens a socket for each family that the address stands for. Where it stands for both, IPv6 may be missing.
func listen(at netip.AddrPort) ([]*socket, error) {
	ip := at.Addr().Unmap()
	if ip.IsValid() && !ip.IsUnspecified() {
		s, err := open(ip.Is6(), netip.AddrPortFrom(ip, at.Port()))
		if err != nil {
			return nil, err
		}
		return []*socket{s}, nil
	}
	const attempts = 16 // a free port of one family may be taken in the other
	for range attempts {
		s4, err := open(false, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()))
		if err != nil {
			return nil, err
		}
		s6, err := open(true, netip.AddrPortFrom(netip.IPv6Unspecified(), s4.local.Port()))
		switch {
		case err == nil:
			return []*socket{s4, s6}, nil
		case !errors.Is(err, unix.EADDRINUSE):
			return []*socket{s4}, nil // no IPv6 on this host
		}
		_ = s4.conn.Close()
		if at.Port() != 0 {
			return nil, err
		}
	}
	return nil, errors.New("no port is free in both address families")
}

func open(v6 bool, at netip.AddrPort) (*socket, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if failed := c.Control(func(fd uintptr) { err = setOptions(int(fd), v6) }); failed != nil {
			return failed
		}
		return err
	}}
	pc, err := lc.ListenPacket(
		context.Background(),
		network,
		net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(at.Port()))),
	)
	if err != nil {
		return nil, err
	}
	s := &socket{v6: v6, conn: pc.(*net.UDPConn)}
	s.local = plainAddr(s.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	return s, nil
}

// setOptions has the kernel set DF and fragment nothing, tell of ICMP errors, and join datagrams of one sender. DF is
// set with PROBE, not DO: the kernel's own idea of the path's MTU does not keep a probe from leaving (ip(7),
// IP_MTU_DISCOVER).
func setOptions(fd int, v6 bool) error {
	type option struct{ level, name, value int }
	need := []option{
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1},
	}
	if v6 {
		need = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
		}
	}
	for _, o := range need {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("socket option %d: %w", o.name, err)
		}
	}
	for _, o := range []option{
		{unix.IPPROTO_UDP, unix.UDP_GRO, 1}, // Linux 5.0; without it datagrams come one by one
		{unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer},
	} {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value) // slower without
	}
	_ = sockio.TellLocal(fd, v6) // without it the kernel chooses the source of answers
	return nil
}

// pathMTU asks the kernel how large an IP packet to an address may be, in bytes; 0: it does not know. This is the MTU
// of the route, or what ICMP said of the path (ip(7), IP_MTU).
func pathMTU(a netip.AddrPort) int {
	family, level, name := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
	if a.Addr().Is6() {
		family, level, name = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(a)); err != nil {
		return 0
	}
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return 0
	}
	return n
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
