package hostconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// silence is how long a connection may go on without a sign of the other host: probes, or acknowledgements of what was
// sent (tcp(7), TCP_USER_TIMEOUT).
const silence = 30 * time.Second

// Conn is a connection to another host on which two containers' connection goes on. One goroutine reads, one writes;
// the other methods may be called beside.
type Conn struct {
	tcp *net.TCPConn
	tls *tls.Conn // nil: plain
}

// transport is what is read and written.
func (c *Conn) transport() io.ReadWriter {
	if c.tls != nil {
		return c.tls
	}
	return c.tcp
}

// prepare makes it a connection that may be idle for ever, and that ends with a reset where it is just closed.
func (c *Conn) prepare() error {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = errors.Join(sockio.SetTCP(int(fd), sockio.KeepAlive(silence)),
			sockio.SetOption(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds())))
	})
	return errors.Join(err, set, c.tcp.SetDeadline(time.Time{}))
}

// Sealed says whether TLS is between; else the socket can be had by Release.
func (c *Conn) Sealed() bool { return c.tls != nil }

// Release gives the socket of a plain connection to the caller. The Conn is of no use any more.
func (c *Conn) Release() (fd int, err error) {
	if fd, err = sockio.Dup(c.tcp); err != nil {
		c.Reset()
		return -1, err
	}
	return fd, c.tcp.Close() // the socket lives on in the copy
}

// LocalAddr is this host's address and port.
func (c *Conn) LocalAddr() netip.AddrPort {
	a := c.tcp.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Read reads what the other end says. The end of its half is io.EOF, that of the connection another error.
func (c *Conn) Read(b []byte) (int, error) { return c.transport().Read(b) }

// Write writes b; it waits for room.
func (c *Conn) Write(b []byte) (int, error) { return c.transport().Write(b) }

// CloseWrite says that nothing more is written. It waits for room: package crypto/tls gives the alert that says so 5 s,
// and fails then, although the other end may only be slow.
func (c *Conn) CloseWrite() error {
	if c.tls == nil {
		return c.tcp.CloseWrite()
	}
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Write(func(fd uintptr) bool {
		events, err := sockio.Ready(int(fd), unix.POLLOUT)
		return events != 0 || err != nil
	}); err != nil {
		return err
	}
	return c.tls.CloseWrite()
}

// FD is the socket's descriptor, for those who are done before it is closed.
func (c *Conn) FD() int {
	number := -1
	if raw, err := c.tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { number = int(fd) }) // -1: it is closed
	}
	return number
}

// SetWriteDeadline bounds writes, those that wait as well.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tcp.SetWriteDeadline(t) }

// Interrupt ends what waits for the connection, now and from now on. It does not block.
func (c *Conn) Interrupt() { _ = c.tcp.SetDeadline(time.Unix(1, 0)) }

// Finish closes the connection; what is still on its way is sent in the background.
func (c *Conn) Finish() {
	_ = c.tcp.SetLinger(-1)
	_ = c.tcp.Close()
}

// Reset closes the connection with a reset.
func (c *Conn) Reset() {
	_ = c.tcp.SetLinger(0)
	_ = c.tcp.Close()
}
