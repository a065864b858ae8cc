package stack

import (
	"bytes"
	"io"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is a TCP connection to a container. Beside net.Conn's methods it has some that never wait, for a relay: no lock
// of netstack's is held for longer than it takes to copy.
type Conn struct {
	*gonet.TCPConn
	ep    tcpip.Endpoint
	queue *waiter.Queue

	readable, writable chan struct{} // hold one signal each
}

func newConn(queue *waiter.Queue, ep tcpip.Endpoint) *Conn {
	c := &Conn{TCPConn: gonet.NewTCPConn(queue, ep), ep: ep, queue: queue}
	var r, w waiter.Entry
	r, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	w, c.writable = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&r) // for as long as the endpoint lives
	queue.EventRegister(&w)
	return c
}

// TryRead moves what has arrived to w, which must not block: netstack calls it with the endpoint's lock held, and
// whatever else happens to the connection, its end too, waits for that lock. An error of w's ends it early; w knows it.
// The result is EAGAIN where nothing has arrived, and io.EOF after the container's FIN.
func (c *Conn) TryRead(w io.Writer) error {
	switch _, err := c.ep.Read(w, tcpip.ReadOptions{}); err.(type) {
	case nil, *tcpip.ErrBadBuffer: // w took nothing
		return nil
	case *tcpip.ErrWouldBlock:
		return unix.EAGAIN
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	default:
		return &tcpipError{err}
	}
}

// TryWrite queues as much of b as there is room for.
func (c *Conn) TryWrite(b []byte) (int, error) {
	var r bytes.Reader
	r.Reset(b)
	switch n, err := c.ep.Write(&r, tcpip.WriteOptions{}); err.(type) {
	case nil:
		return int(n), nil
	case *tcpip.ErrWouldBlock:
		return int(n), unix.EAGAIN
	default:
		return int(n), &tcpipError{err}
	}
}

// Readable has a signal when there may be something to read, or an end to learn of. It has one reader.
func (c *Conn) Readable() <-chan struct{} { return c.readable }

// Writable has a signal when there may be room to write, or an end to learn of. It has one reader.
func (c *Conn) Writable() <-chan struct{} { return c.writable }

// OnReset calls f once the connection was reset, timed out or aborted, and at once if it has been, perhaps more than
// once. f is called with locks of netstack's held: it must not block, nor call a method of c. stop ends that.
func (c *Conn) OnReset(f func()) (stop func()) {
	check := func(waiter.EventMask) {
		if tcp.EndpointState(c.ep.State()) == tcp.StateError {
			f()
		}
	}
	e := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, check)
	c.queue.EventRegister(&e)
	check(0)
	return func() { c.queue.EventUnregister(&e) }
}

// SetBuffers sets how much may wait in each direction, in bytes, at least 4 KiB and at most 4 MiB. What waits already
// stays.
func (c *Conn) SetBuffers(size int) {
	c.ep.SocketOptions().SetReceiveBufferSize(int64(size), true)
	c.ep.SocketOptions().SetSendBufferSize(int64(size), true)
}

// Abort resets the connection. It is closed nevertheless.
func (c *Conn) Abort() { c.ep.Abort() }
