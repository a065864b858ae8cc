package api

import (
	"context"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// Descriptors come with a request's first bytes (SCM_RIGHTS, unix(7)): a namespace that the client has opened where it
// can see it, which the daemon may not be able to. HTTP knows nothing of it; the connection collects them, and the
// handler takes them.

// maxConnectionFiles bounds the descriptors of one connection that wait to be taken. What comes beyond that is closed.
const maxConnectionFiles = 4

// fileListener accepts connections that collect descriptors.
type fileListener struct{ net.Listener }

// Accept implements net.Listener.
func (l fileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if u, ok := c.(*net.UnixConn); ok && err == nil {
		return &fileConn{UnixConn: u, oob: make([]byte, unix.CmsgSpace(maxConnectionFiles*4))}, nil
	}
	return c, err
}

// fileConn is a connection of a client. It closes the descriptors that no handler has taken.
type fileConn struct {
	*net.UnixConn
	oob []byte // of the Read that is under way

	mu     sync.Mutex // guards the rest
	files  []*os.File
	closed bool
}

// fileConnKey is under what a request's context has its *fileConn.
type fileConnKey struct{}

// Read implements net.Conn.
func (c *fileConn) Read(b []byte) (int, error) {
	n, oobn, _, _, err := c.ReadMsgUnix(b, c.oob)
	if oobn > 0 {
		c.collect(c.oob[:oobn])
	}
	return max(n, 0), err // -1 is recvmsg(2)'s answer in an error, such as a deadline; no io.Reader says so
}

// collect keeps the descriptors in a control message. Those for which there is no room are closed by the kernel.
func (c *fileConn) collect(oob []byte) {
	fds, _ := sockio.ParseRights(oob) // of what is damaged, those before it
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "received")
		if c.closed || len(c.files) == maxConnectionFiles {
			_ = f.Close()
			continue
		}
		c.files = append(c.files, f)
	}
}

// Close implements net.Conn.
func (c *fileConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, f := range c.files {
		_ = f.Close()
	}
	c.files = nil
	return c.UnixConn.Close()
}

// Unwrap returns the connection without the descriptors, for what is not HTTP.
func (c *fileConn) Unwrap() *net.UnixConn { return c.UnixConn }

// takeFile returns the oldest descriptor that came with the connection of a request, which is the caller's; nil: there
// is none.
func takeFile(ctx context.Context) *os.File {
	c, ok := ctx.Value(fileConnKey{}).(*fileConn)
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) == 0 {
		return nil
	}
	f := c.files[0]
	c.files = c.files[1:]
	return f
}

// sendingConn sends a descriptor with the first bytes that it writes.
type sendingConn struct {
	*net.UnixConn
	file *os.File // nil once it is sent; the caller's
}

// Write implements net.Conn.
func (c *sendingConn) Write(b []byte) (int, error) {
	if c.file == nil || len(b) == 0 {
		return c.UnixConn.Write(b)
	}
	n, err := sockio.WriteRights(c.UnixConn, b, int(c.file.Fd()))
	if err == nil {
		c.file = nil
		if n < len(b) {
			more, err := c.UnixConn.Write(b[n:])
			return n + more, err
		}
	}
	return n, err
}
