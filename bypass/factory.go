package bypass

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox"
)

// Role is the factory: a process in a sandbox that makes sockets there until nobody wants more.
var Role = sandbox.Role{Name: "factory", Run: runFactory}

// runFactory answers each order that comes over c, after preparing the network namespace that this process is in for
// it.
func runFactory(c *net.UnixConn) error {
	var done preparations
	for {
		var o order
		if _, err := sandbox.ReceiveMessage(c, &o); err != nil {
			return nil // nobody wants more
		}
		var r reply
		fds, err := done.carryOut(o)
		if err != nil {
			r = reply{err.Error(), errors.Is(err, ErrContainerRules)}
		}
		err = sandbox.SendMessage(c, r, fds)
		closeAll(fds)
		if err != nil {
			return err
		}
	}
}

// preparations are what was done for the sockets of this process. Each is done once: when the container changes its
// rules, the pool starts another process.
type preparations struct {
	looked, marked, filtered, datagrams bool
	ipv6                                bool
}

// Sockets makes sockets in the network namespace of the thread that calls it: what a factory does, for a process that
// is there itself. The zero value is ready. One goroutine uses it, which is locked to its thread.
type Sockets struct{ done preparations }

// Make makes count sockets of a kind, as a Factory does.
func (s *Sockets) Make(d Direction, ipv6 bool, count int) (fds []int, err error) {
	return s.done.carryOut(order{Direction: d, IPv6: ipv6, Count: count})
}

func (p *preparations) carryOut(o order) ([]int, error) {
	if o.Watch {
		return openWatch()
	}
	if o.Direction < 0 || o.Direction >= directions {
		return nil, fmt.Errorf("sockets of an unknown direction %d", o.Direction)
	}
	if err := p.prepare(o.Direction); err != nil {
		return nil, err
	}
	return makeSockets(o.Direction, o.IPv6, o.Count)
}

// prepare makes the namespace ready for sockets of a direction.
func (p *preparations) prepare(d Direction) (err error) {
	if !p.looked {
		if err := checkContainerRules(); err != nil {
			return err
		}
		p.looked = true
	}
	if !p.marked {
		if p.ipv6, err = fwmark.Prepare(); err != nil {
			return err
		}
		p.marked = true
	}
	if d == Outbound && !p.filtered {
		if err := loadRuleset(p.ipv6); err != nil {
			return err
		}
		p.filtered = true
		_ = seedSYNSent(p.ipv6) // those connections go through the gateway otherwise
	}
	if d == Datagram && !p.datagrams {
		if err := loadDatagramRuleset(p.ipv6); err != nil {
			return err
		}
		p.datagrams = true
	}
	return nil
}

// makeSockets makes unconnected sockets with the mark of a direction.
func makeSockets(d Direction, ipv6 bool, count int) (fds []int, err error) {
	mark := fwmark.Inbound
	if d == Outbound {
		mark = fwmark.Outbound
	}
	kind := unix.SOCK_STREAM
	if d == Datagram {
		kind = unix.SOCK_DGRAM
	}
	family, level, transparent := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if ipv6 {
		family, level, transparent = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_MARK, mark},
		{level, transparent, 1},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	}
	if d != Datagram {
		options = append(
			options,
			[3]int{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
			[3]int{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		)
	}
	for range count {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fds, os.NewSyscallError("socket", err)
		}
		fds = append(fds, fd)
		// Closed by a daemon that ends, a connection is reset; code that ends one well says so before.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fds, os.NewSyscallError("setsockopt", err)
		}
		for _, o := range options {
			if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return fds, os.NewSyscallError("setsockopt", err)
			}
		}
		if d != Datagram {
			sockio.SetCongestion(fd, sockio.LocalCongestion) // what it sends stays on lo
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
