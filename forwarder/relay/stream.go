package relay

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// Stream is an end of a connection whose bytes this process has to change, such as those of TLS. One goroutine reads,
// one writes; the other methods may be called beside.
type Stream interface {
	// Read returns io.EOF where the other end has ended its half, and another error where the connection has ended.
	io.ReadWriter
	// CloseWrite passes on that nothing more will be written. It waits until what was written has left.
	CloseWrite() error
	// FD is the socket beneath, which is watched for a reset.
	FD() int
	SetWriteDeadline(t time.Time) error
	// Interrupt ends what waits for the stream, now and from now on. It does not block.
	Interrupt()
	// Finish closes the stream; what is still on its way is sent in the background. Reset resets it.
	Finish()
	Reset()
}

const (
	// streamPiece is what is read of a stream at once: a record of TLS (RFC 8446, 5.1).
	streamPiece = 16 << 10
	// resetGrace is how long a direction whose source was reset waits for its destination to take what came before.
	resetGrace = time.Second
)

// StreamMemory is what a session of a stream holds at most, in bytes: a piece and a record that is not whole yet, what
// was read from the container, two goroutines and the state of TLS.
const StreamMemory = 2*streamPiece + sockio.BufferSize + 32<<10

// streaming is a socket of the container and a stream between which two goroutines copy.
type streaming struct {
	s    *Session
	in   *sockio.Conn
	host Stream
}

var _ carrier = (*streaming)(nil)

// RelayStream begins a session between a socket as for Relay and a stream. It owns both.
func (l *Loop) RelayStream(inside int, host Stream, o Options) *Session {
	s := l.session(o)
	c := &streaming{s: s, in: sockio.NewConn(inside), host: host}
	s.setCarrier(c)
	go c.run()
	return s
}

// run copies until both halves have ended.
func (c *streaming) run() {
	c.s.copyBoth(c.outward, c.inward)
	if c.s.aborted() {
		c.in.Reset()
		c.host.Reset()
	} else {
		c.in.Finish()
		c.host.Finish()
	}
	c.s.ended()
}

// abort implements carrier.
func (c *streaming) abort() {
	c.in.Interrupt()
	c.host.Interrupt()
}

// detach implements carrier: the keys of a stream stay in this process.
func (c *streaming) detach(context.Context) (d [2]Direction, err error) { return d, errNotSockets }

// outward copies from the container to the stream, and passes its end on. Between reads it holds no buffer.
func (c *streaming) outward() error {
	raw, err := c.in.SyscallConn()
	if err != nil {
		return err
	}
	w := c.watched(c.in.FD(), c.host, c.host.SetWriteDeadline, &c.s.bytesOut)
	defer w.st.unwatch()
	for {
		buf, n, err := readPooled(raw, sockio.BufferSize)
		if err != nil {
			return err
		}
		if n == 0 {
			sockio.PutBuffer(buf)
			return w.wait(c.host.CloseWrite)
		}
		err = w.write(buf[:n])
		sockio.PutBuffer(buf)
		if err != nil {
			return err
		}
	}
}

// inward copies from the stream to the container, and passes its end on.
func (c *streaming) inward() error {
	w := c.watched(c.host.FD(), c.in, c.in.SetWriteDeadline, &c.s.bytesIn)
	defer w.st.unwatch()
	buf := make([]byte, streamPiece)
	for {
		n, err := c.host.Read(buf)
		if n > 0 {
			if err := w.write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return c.in.CloseWrite()
		case err != nil:
			return err
		}
	}
}

// watchedWriter writes to one end, and gives up where the other one was reset and this one takes nothing.
type watchedWriter struct {
	to    io.Writer
	moved *atomic.Uint64
	st    stall
	bound func(time.Time) error
}

// watched is a writer to one end, whose source is the socket fd.
func (c *streaming) watched(fd int, to io.Writer, bound func(time.Time) error, moved *atomic.Uint64) *watchedWriter {
	w := &watchedWriter{to: to, moved: moved, bound: bound}
	w.st.watch = func() { w.st.watchSocket(c.s.loop.reactor, fd) }
	w.st.interrupt = w.giveUp
	return w
}

// giveUp has a write end that waits: what came before a reset is delivered where there is room for it.
func (w *watchedWriter) giveUp() { _ = w.bound(time.Now().Add(resetGrace)) }

func (w *watchedWriter) write(b []byte) error {
	if faults.Enabled {
		faults.Check(faults.Copy, b)
	}
	return w.wait(func() error {
		n, err := w.to.Write(b)
		w.moved.Add(uint64(n))
		return err
	})
}

// wait calls what may wait for the destination.
func (w *watchedWriter) wait(f func() error) error {
	if !w.st.begin() {
		w.giveUp()
	}
	defer w.st.end()
	return f()
}
