package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// copying is a Conn and a socket of the host's between which two goroutines copy.
type copying struct {
	s       *Session
	in      Conn
	host    *sockio.Conn
	buffers Buffers
}

// copyBoth calls what copies each direction, and returns when both have ended. An error in one direction ends both.
func (s *Session) copyBoth(outward, inward func() error) {
	half := func(copy func() error) {
		err := s.call(copy)
		s.halfClosed.Store(true)
		if err != nil {
			s.Abort()
		}
	}
	done := make(chan struct{})
	go func() { half(outward); close(done) }()
	half(inward)
	<-done
}

// run copies until both halves have ended.
func (c *copying) run() {
	c.s.copyBoth(c.outward, c.inward)
	_ = c.in.Close()
	if c.s.aborted() {
		c.host.Reset()
	} else {
		c.host.Finish()
	}
	c.s.ended()
}

// abort implements carrier.
func (c *copying) abort() {
	c.host.Interrupt()
	c.in.Abort()
}

// detach implements carrier: netstack's connections stay in this process.
func (c *copying) detach(context.Context) (d [2]Direction, err error) { return d, errNotSockets }

// outward copies from the container to the host, and passes its end on.
func (c *copying) outward() error {
	w := &tryWriter{fd: c.host.FD(), n: &c.s.bytesOut}
	st := &stall{interrupt: c.host.Interrupt}
	stop := func() {}
	st.watch = func() { stop = c.in.OnReset(st.sourceReset) }
	defer func() { stop() }()
	for {
		err := c.in.TryRead(w)
		c.buffers.Moved(c.s.bytesOut.Load() + c.s.bytesIn.Load())
		switch {
		case errors.Is(w.err, unix.EAGAIN):
			w.err = nil
			if !st.begin() {
				return unix.ECONNRESET
			}
			err := c.host.WaitWritable()
			st.end()
			if err != nil {
				return err
			}
		case w.err != nil:
			return w.err
		case errors.Is(err, unix.EAGAIN):
			<-c.in.Readable() // an abort makes it readable too
		case errors.Is(err, io.EOF):
			return c.host.CloseWrite()
		case err != nil:
			return err
		}
	}
}

// tryWriter writes to a non-blocking socket as much as it takes. err is EAGAIN where it took less.
type tryWriter struct {
	fd  int
	n   *atomic.Uint64
	err error
}

// Write implements io.Writer.
func (w *tryWriter) Write(b []byte) (int, error) {
	if faults.Enabled {
		faults.Check(faults.Copy, b)
	}
	n, err := unix.Write(w.fd, b)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(w.fd, b)
	}
	n = max(n, 0)
	w.n.Add(uint64(n))
	if err == nil && n < len(b) {
		err = unix.EAGAIN
	}
	w.err = err
	return n, err
}

// inward copies from the host to the container, and passes its end on. Between reads it holds no buffer.
func (c *copying) inward() error {
	raw, err := c.host.SyscallConn()
	if err != nil {
		return err
	}
	st := &stall{interrupt: c.s.Abort}
	st.watch = func() { st.watchSocket(c.s.loop.reactor, c.host.FD()) }
	defer st.unwatch()
	for {
		buf, n, err := readPooled(raw, c.buffers.Chunk())
		if err != nil {
			return err
		}
		if n == 0 {
			sockio.PutBuffer(buf)
			return c.in.CloseWrite()
		}
		c.buffers.Moved(c.s.bytesIn.Add(uint64(n)) + c.s.bytesOut.Load())
		m, err := c.in.TryWrite(buf[:n])
		var rest []byte
		if m < n {
			rest = bytes.Clone(buf[m:n]) // it may wait for long: no more than that is held meanwhile
		}
		sockio.PutBuffer(buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if err := c.deliver(rest, st); err != nil {
			return err
		}
	}
}

// readPooled waits for data of a socket, and only then takes a buffer, which is the caller's to put back, and reads at
// most so many bytes. n is 0 at the end of the stream. With an error there is no buffer.
func readPooled(raw syscall.RawConn, most int) (buf *sockio.Buffer, n int, err error) {
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		if buf == nil {
			buf = sockio.GetBuffer()
		}
		for {
			n, rerr = syscall.Read(int(fd), buf[:most])
			if rerr != syscall.EINTR {
				break
			}
		}
		if rerr == syscall.EAGAIN {
			sockio.PutBuffer(buf)
			buf = nil
			return false
		}
		return true
	})
	if err != nil || rerr != nil {
		sockio.PutBuffer(buf)
		return nil, 0, errors.Join(err, rerr)
	}
	return buf, n, nil
}

// deliver queues b for the container, and waits where there is no room.
func (c *copying) deliver(b []byte, st *stall) error {
	for len(b) > 0 {
		n, err := c.in.TryWrite(b)
		b = b[n:]
		switch {
		case errors.Is(err, unix.EAGAIN):
			if !st.begin() {
				return unix.ECONNRESET
			}
			<-c.in.Writable() // an abort makes it writable too
			st.end()
		case err != nil:
			return err
		}
	}
	return nil
}
