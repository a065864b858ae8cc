package sockio

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connected, non-blocking TCP socket in the Go runtime's poller. Its options are those it was made with:
// net.FileConn would set a dozen more, which is half of what a short connection costs.
type Conn struct {
	*os.File
	fd int
}

// NewConn makes fd a Conn, which owns it.
func NewConn(fd int) *Conn { return &Conn{os.NewFile(uintptr(fd), "tcp"), fd} }

// FD is the descriptor, for those who are done before Close. Unlike File.Fd, it leaves the socket non-blocking.
func (c *Conn) FD() int { return c.fd }

// Interrupt ends what waits for the socket, now and from now on, with os.ErrDeadlineExceeded. It does not block, unlike
// Close, which returns only when nobody uses the socket any more.
func (c *Conn) Interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// WaitWritable waits until the socket takes data, or has an error.
func (c *Conn) WaitWritable() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Write(func(fd uintptr) bool { // which asks after it has told the poller to watch
		events, err := Ready(int(fd), unix.POLLOUT)
		return events != 0 || err != nil
	})
}

func (c *Conn) control(f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// CloseWrite passes on that nothing more will be written.
func (c *Conn) CloseWrite() error {
	return c.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// Finish closes the connection; what is still on its way is sent in the background.
func (c *Conn) Finish() {
	_ = c.control(func(fd int) error { return SetLinger(fd, false) })
	_ = c.Close()
}

// Reset closes the connection with a reset.
func (c *Conn) Reset() {
	_ = c.control(func(fd int) error { return SetLinger(fd, true) })
	_ = c.Close()
}
