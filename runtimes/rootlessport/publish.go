package rootlessport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/hostaddr"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/splice"
)

// published are the ports of one container.
type published struct {
	in    *inside
	group *splice.Group
	host  *hostaddr.Set              // the host's own addresses
	child atomic.Pointer[netip.Addr] // the container's address, which may change

	stop []func() error // closes the ports
}

// Publish binds the ports of mappings in the network namespace of the process, and leads them to the container whose
// namespace is at netns and whose address is child, until the result is closed. It holds the container's namespace
// until the process ends, since the thread that is inside stays.
func Publish(netns string, mappings []PortMapping, child netip.Addr) (io.Closer, error) {
	ports, err := (&Config{Mappings: mappings}).ports()
	if err != nil {
		return nil, err
	}
	in, err := enter(netns)
	if err != nil {
		return nil, err
	}
	p, err := publish(in, ports, child)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func publish(in *inside, ports []port, child netip.Addr) (*published, error) {
	p := &published{in: in, group: splice.NewGroup(), host: hostaddr.Watch()}
	p.child.Store(&child)
	for _, each := range ports {
		if err := p.bind(each); err != nil {
			return nil, errors.Join(explain(each, err), p.Close())
		}
	}
	return p, nil
}

// lastBytes is how long connections may take to end when the container has: what it sent last is on its way then, and
// on a machine with other work this process may learn of the container's end first.
const lastBytes = 2 * time.Second

// Close closes the ports, and ends what goes through them as soon as that has ended by itself, or after lastBytes.
func (p *published) Close() error {
	var errs []error
	for _, stop := range p.stop {
		errs = append(errs, stop())
	}
	p.group.Drain(lastBytes)
	p.host.Close()
	return errors.Join(errs...)
}

// bind binds one port, at all addresses of both families where that was asked for.
func (p *published) bind(each port) error {
	if each.host.Addr() == netip.IPv4Unspecified() {
		err := p.bindAt(
			each,
			netip.AddrPortFrom(netip.IPv6Unspecified(), each.host.Port()),
			sockio.ListenOptions{Dual: true},
		)
		if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) { // the host has IPv6
			return err
		}
	}
	return p.bindAt(each, each.host, sockio.ListenOptions{})
}

func (p *published) bindAt(each port, at netip.AddrPort, o sockio.ListenOptions) error {
	listen := sockio.ListenTCP
	if each.proto == "udp" {
		listen = sockio.ListenUDP
	}
	fd, err := listen(at, o)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), each.proto)
	defer f.Close()
	if each.proto == "udp" {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		p.stop = append(p.stop, p.group.ReceiveUDP(c.(*net.UDPConn), func(client netip.AddrPort) (*net.UDPConn, error) {
			c, err := p.in.dial("udp", p.name(client), p.target(each))
			if err != nil {
				return nil, err
			}
			return c.(*net.UDPConn), nil
		}))
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	p.stop = append(p.stop, p.group.AcceptTCP(l, func(_ context.Context, client netip.AddrPort) (*net.TCPConn, error) {
		c, err := p.in.dial("tcp", p.name(client), p.target(each))
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}))
	return nil
}

// target is where the container has a port.
func (p *published) target(each port) netip.AddrPort {
	return netip.AddrPortFrom(*p.child.Load(), each.container)
}

// name is the client's as the container may know it; invalid: it is the host, whose addresses lead elsewhere in the
// container.
func (p *published) name(client netip.AddrPort) netip.AddrPort {
	if a := client.Addr(); a.Zone() != "" || a.IsLoopback() || a.IsLinkLocalUnicast() || p.host.Has(a) {
		return netip.AddrPort{}
	}
	return client
}

// explain says why a port cannot be bound, in the words of Podman's rootlessport, which tests and people know.
func explain(each port, err error) error {
	err = fmt.Errorf("listen %s: bind: %w", each, err)
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	start := 1024
	if b, e := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); e == nil {
		_, _ = fmt.Sscan(strings.TrimSpace(string(b)), &start)
	}
	return fmt.Errorf(
		"cannot expose privileged port %d, you can add 'net.ipv4.ip_unprivileged_port_start=%d' to /etc/sysctl.conf "+
			"(currently %d), or choose a larger port number (>= %d): %w",
		each.host.Port(),
		each.host.Port(),
		start,
		start,
		err,
	)
}
