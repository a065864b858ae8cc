package sandbox

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// preparations are what a namespace needs for sockets of each use. Each is asked for once.
type preparations struct {
	marks  func() (ipv6 bool, err error)
	divert func() error
}

func newPreparations() preparations {
	marks := sync.OnceValues(routeMarked)
	return preparations{marks, sync.OnceValue(func() error {
		ipv6, err := marks()
		if err == nil {
			err = divertRules(ipv6)
		}
		if err == nil {
			_ = noteAsked(ipv6) // they go through the gateway otherwise
		}
		return err
	})}
}

// prepare makes the namespace ready for sockets of a use.
func (p preparations) prepare(u Use) error {
	if u == Divert {
		return p.divert()
	}
	_, err := p.marks()
	return err
}

// runSockets is the maker: it answers each order with sockets, for whose use it has prepared the namespace.
func runSockets() error {
	c, err := unixConn(controlFD)
	if err != nil {
		return fmt.Errorf("maker of sockets without a control socket: %w", err)
	}
	defer c.Close()
	if err := entry.Result(); err != nil {
		return err
	}
	namespace := newPreparations()
	order := make([]byte, 2) // a kind, and how many
	for {
		n, err := c.Read(order)
		if err != nil || n < len(order) {
			return nil // nobody wants more
		}
		var a answer
		var fds []int
		if k := kind(order[0]); int(k) >= kinds {
			err = fmt.Errorf("sockets of an unknown kind %d", k)
		} else if err = namespace.prepare(k.use()); err == nil {
			fds, err = markedSockets(k, int(order[1]))
		}
		if err != nil {
			a.Error = err.Error()
		}
		err = send(c, a, fds)
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// markedSockets makes a batch of sockets for direct connections.
func markedSockets(k kind, count int) (fds []int, err error) {
	mark := directMark
	if k.use() == Divert {
		mark = divertMark
	}
	family, level, transparent := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if k.v6() {
		family, level, transparent = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	defer func() {
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			fds = nil
		}
	}()
	for range count {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fds, os.NewSyscallError("socket", err)
		}
		fds = append(fds, fd)
		// Closed by a daemon that ends, a connection is reset; whoever ends one well says so before.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fds, os.NewSyscallError("setsockopt", err)
		}
		for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_MARK, mark}, {level, transparent, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}} {
			if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
				return fds, os.NewSyscallError("setsockopt", err)
			}
		}
	}
	return fds, nil
}
