package forwarder

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SocketConn is a connected, non-blocking TCP socket in the Go runtime's poller. Its options are those it was made with:
// net.FileConn would set a dozen more, which is half of what a short connection costs.
type SocketConn struct {
	*os.File
	fd int // for those who are done before Close
}

func newSocketConn(fd int) *SocketConn { return &SocketConn{os.NewFile(uintptr(fd), "tcp"), fd} }

// interrupt ends what waits for the socket, now and from now on, with os.ErrDeadlineExceeded. It does not block, unlike Close,
// which returns only when nobody uses the socket any more.
func (c *SocketConn) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// waitWritable waits until the socket takes data, or has an error.
func (c *SocketConn) waitWritable() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Write(func(fd uintptr) bool { // which asks after it has told the poller to watch
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (c *SocketConn) control(f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// CloseWrite passes on that nothing more will be written.
func (c *SocketConn) CloseWrite() error {
	return c.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// SetLinger says what Close does with data that was not sent (socket(7), SO_LINGER): 0 makes it a reset, below 0 it is sent
// in the background.
func (c *SocketConn) SetLinger(seconds int) error {
	l := &unix.Linger{Onoff: 1, Linger: int32(seconds)}
	if seconds < 0 {
		l = &unix.Linger{}
	}
	return c.control(func(fd int) error { return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, l) })
}

// DefaultPeerTimeout is how long a connection may wait for a peer that is gone: programs whose own keepalive finds out in seconds are
// behind the host's socket, which has to find out for them. An idle connection whose peer lives is kept for ever (RFC 5382
// REQ-5 asks for 2 h 4 min at least).
const DefaultPeerTimeout = 30 * time.Second

// keepAliveProbes is how many probes without an answer end a connection.
const keepAliveProbes = 3

// keepAliveFor is a socket's keepalive (tcp(7)) that ends a connection after half of timeout in silence and probes in the other half;
// 0: what the kernel has, 2 hours and more. The kernel counts in seconds.
func keepAliveFor(timeout time.Duration) net.KeepAliveConfig {
	if timeout <= 0 {
		return net.KeepAliveConfig{}
	}
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     max(timeout/2, time.Second).Round(time.Second),
		Interval: max(timeout/2/keepAliveProbes, time.Second).Round(time.Second),
		Count:    keepAliveProbes,
	}
}

// setInherited sets, on a listening socket, the options that accepted ones take over (tcp(7), Linux). Of a daemon that was
// killed, the kernel closes the connections: to their peers that is a reset, and not the end of what there was to read.
func setInherited(fd int, keepAlive net.KeepAliveConfig) error {
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	options := [][3]int{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, // or urgent data would be lost (RFC 6093, 3.4)
	}
	if keepAlive.Enable {
		options = append(options,
			[3]int{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle / time.Second)},
			[3]int{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval / time.Second)},
			[3]int{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count})
	}
	for _, o := range options {
		err := unix.SetsockoptInt(fd, o[0], o[1], o[2])
		if errors.Is(err, unix.EOPNOTSUPP) && o[1] == unix.SO_OOBINLINE {
			continue // an inherited socket of multipath TCP, which knows no urgent data
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
