// Package relaytest has a relay.Conn in memory, for the tests of those who give one to a relay.Loop.
package relaytest

import (
	"bytes"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is a container's end of which the test is the container: it sends with Put, and receives with Take.
type Conn struct {
	mu                 sync.Mutex
	in, out            bytes.Buffer // what the container has sent, and is to receive
	room               int          // bytes that out may hold
	finIn, finOut      bool
	err                error
	onReset            func()
	readable, writable chan struct{}
	closed             int
}

// NewConn makes a connection that holds up to room bytes for the container.
func NewConn(room int) *Conn {
	return &Conn{room: room, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Put is what the container sends; fin ends it.
func (c *Conn) Put(b string, fin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.WriteString(b)
	c.finIn = c.finIn || fin
	signal(c.readable)
}

// Take is what the container has received and not taken yet, which makes room, and whether nothing more comes.
func (c *Conn) Take() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.out.String()
	c.out.Reset()
	signal(c.writable)
	return b, c.finOut
}

// Fail ends the connection, as a reset by the container does.
func (c *Conn) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.in.Reset() // as with netstack, what nobody has read is gone
	if c.onReset != nil {
		c.onReset()
	}
	signal(c.readable)
	signal(c.writable)
}

// TryRead implements relay.Conn.
func (c *Conn) TryRead(w io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.in.Len() > 0:
		n, _ := w.Write(c.in.Bytes())
		c.in.Next(n)
		return nil
	case c.err != nil:
		return c.err
	case c.finIn:
		return io.EOF
	}
	return unix.EAGAIN
}

// TryWrite implements relay.Conn.
func (c *Conn) TryWrite(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	n := min(len(b), c.room-c.out.Len())
	c.out.Write(b[:n])
	if n < len(b) {
		return n, unix.EAGAIN
	}
	return n, nil
}

// OnReset implements relay.Conn.
func (c *Conn) OnReset(f func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onReset = f
	if c.err != nil {
		f()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.onReset = nil
	}
}

// CloseWrite implements relay.Conn.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finOut = true
	return c.err
}

// Close implements relay.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

// Readable implements relay.Conn.
func (c *Conn) Readable() <-chan struct{} { return c.readable }

// Writable implements relay.Conn.
func (c *Conn) Writable() <-chan struct{} { return c.writable }

// SetBuffers implements relay.Conn.
func (c *Conn) SetBuffers(int) {}

// Abort implements relay.Conn.
func (c *Conn) Abort() { c.Fail(unix.ECONNABORTED) }

// Closed is how often Close was called.
func (c *Conn) Closed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
