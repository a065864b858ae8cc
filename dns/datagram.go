package dns

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// datagramTimeout bounds a send on a socket that is not the kernel's. Those are the gateways' own, which take what
// they are given at once.
const datagramTimeout = 100 * time.Millisecond

// datagramSender returns what sends a reply on pc and never waits: a datagram that the socket does not take at once
// is lost, as any datagram may be. The socket is a sandbox's, whose root may shape the loopback interface so that
// nothing leaves it.
func datagramSender(pc net.PacketConn) func(b []byte, to net.Addr) error {
	if conn, ok := pc.(*net.UDPConn); ok {
		if raw, err := conn.SyscallConn(); err == nil {
			return kernelSender(raw)
		}
	}
	return func(b []byte, to net.Addr) error {
		if err := pc.SetWriteDeadline(time.Now().Add(datagramTimeout)); err != nil {
			return err
		}
		_, err := pc.WriteTo(b, to)
		return err
	}
}

// kernelSender sends with sendto(2) on a socket of the kernel's.
func kernelSender(raw syscall.RawConn) func(b []byte, to net.Addr) error {
	domain, domainErr := unix.AF_INET, error(nil)
	err := raw.Control(
		func(fd uintptr) { domain, domainErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) },
	)
	if err = errors.Join(err, domainErr); err != nil {
		return func([]byte, net.Addr) error { return err }
	}
	return func(b []byte, to net.Addr) error {
		addr, ok := to.(*net.UDPAddr)
		if !ok {
			return errors.New("not an address of UDP: " + to.String())
		}
		sa := sockaddr(domain, addr.AddrPort())
		var sent error
		err := raw.Write(func(fd uintptr) bool {
			sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sa)
			return true // done, also where the socket takes nothing now (EAGAIN)
		})
		if err != nil {
			return err
		}
		return sent
	}
}

// sockaddr is an address as sockets of a family take it.
func sockaddr(domain int, at netip.AddrPort) unix.Sockaddr {
	if domain == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if zone := at.Addr().Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(i.Index)
		}
	}
	return sa
}
