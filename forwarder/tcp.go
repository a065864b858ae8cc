package forwarder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/sockio"
)

// dialTimeout is how long a destination may take to answer. The container's own attempts end after about two minutes.
const dialTimeout = 30 * time.Second

// answerTimeout is how long a container's connection may take to be answered from within its namespace. Its packets wait for
// nobody there, and it asks again after a second (RFC 6298, 2.1); the first one may wait for a sandbox to be entered.
const answerTimeout = 500 * time.Millisecond

// HandleTCP dials the host first and completes the container's handshake only then.
func (f *Forwarder) HandleTCP(r SYN) {
	src, dst := r.Ends()
	if faults.Enabled {
		faults.Check(faults.SYN, []byte(dst.String()))
	}
	target, err := f.hostTarget(src.Addr(), unix.IPPROTO_TCP, dst)
	if errors.Is(err, errProhibited) {
		r.Refuse()
		return
	}
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		r.Unreachable(false)
		return
	}
	if f.has(flowKey{src, dst}) {
		r.Drop() // netstack knows its own: this SYN was sent again, and has been answered past it since
		return
	}
	if !f.acquireUse(src.Addr(), useDialling) {
		r.Drop() // it asks again
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	host, err := f.dialHost(ctx, src.Addr(), target)
	cancel()
	f.releaseUse(src.Addr(), useDialling)
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			r.Refuse()
		case errors.Is(err, syscall.EHOSTUNREACH):
			r.Unreachable(true)
		case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
			r.Unreachable(false)
		default:
			r.Drop()
		}
		return
	}
	fl := &flow{f: f, direction: "out", inside: src, outside: dst, hostSide: sockio.LocalAddr(host)}
	if !f.addFlow(fl, host) {
		_ = unix.Close(host) // which resets it (sockio.SetTCP)
		if f.isReleased() {
			r.Drop() // it asks again, and somebody else
		} else {
			r.Refuse()
		}
		return
	}
	if r.CanBypass() {
		inside, err := f.answer(fl)
		if err == nil {
			r.Answered()
			f.counters[countTCP].Add(1)
			f.counters[countBypassOutbound].Add(1)
			f.carry(fl, inside, host)
			return
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, unix.EADDRNOTAVAIL) || f.ctx.Err() != nil {
			r.Drop() // nothing is known of its state, or it is connected; else it asks again
			_ = unix.Close(host)
			f.removeFlow(fl)
			return
		}
	}
	memory, ok := f.claimBuffers(src.Addr())
	if !ok {
		r.Refuse()
		_ = unix.Close(host)
		f.removeFlow(fl)
		return
	}
	defer memory.release()
	in, err := r.Accept()
	if err != nil {
		_ = unix.Close(host)
		f.removeFlow(fl)
		return
	}
	f.counters[countTCP].Add(1)
	memory.use(in)
	fl.memory = memory
	f.run(fl, in, host)
}

// run copies between the gateway's end of a connection and a socket of the host's, until both halves have ended.
func (f *Forwarder) run(fl *flow, in Conn, host int) {
	c := sockio.NewConn(host)
	defer f.removeFlow(fl)
	fl.descriptors.keep(gatewayDescriptors)
	if !f.trackFlow(fl) || !fl.setEnds(func() { fl.in, fl.host = in, c }) {
		in.Abort()
		_ = in.Close()
		c.Reset()
		return
	}
	half := func(copy func() error) { // an error in one direction ends both
		err := fl.call(copy)
		fl.halfClosed.Store(true)
		if err != nil {
			fl.abort()
		}
	}
	done := make(chan struct{})
	go func() { half(fl.outward); close(done) }()
	half(fl.inward)
	<-done
	_ = in.Close()
	if fl.wasAborted() {
		c.Reset()
	} else {
		c.Finish()
	}
}

// outward copies from the container to the host, and passes its end on.
func (fl *flow) outward() error {
	w := &tryWriter{fd: fl.host.FD(), n: &fl.bytesOut}
	s := &stall{interrupt: fl.host.Interrupt}
	stop := func() {}
	s.watch = func() { stop = fl.in.OnReset(s.sourceReset) }
	defer func() { stop() }()
	for {
		err := fl.in.TryRead(w)
		fl.memory.moved(int64(fl.bytesOut.Load() + fl.bytesIn.Load()))
		switch {
		case errors.Is(w.err, unix.EAGAIN):
			w.err = nil
			if !s.begin() {
				return unix.ECONNRESET
			}
			err := fl.host.WaitWritable()
			s.end()
			if err != nil {
				return err
			}
		case w.err != nil:
			return w.err
		case errors.Is(err, unix.EAGAIN):
			<-fl.in.Readable() // an abort makes it readable too
		case errors.Is(err, io.EOF):
			return fl.host.CloseWrite()
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

// streamChunk is how much of a stream is read at once: 45 segments at MTU 1500. Netstack puts at most 65375 bytes into
// one super-frame, and 64 KiB would leave a small second one behind each.
const streamChunk = 45 * 1448

// inward copies from the host to the container, and passes its end on. Between reads it holds no buffer.
func (fl *flow) inward() error {
	raw, err := fl.host.SyscallConn()
	if err != nil {
		return err
	}
	s := &stall{interrupt: fl.abort}
	s.watch = func() { s.watchSocket(fl.f.reactor, fl.host.FD()) }
	defer s.unwatch()
	for {
		var n int
		var rerr error
		buf := (*sockio.Buffer)(nil)
		err := raw.Read(func(fd uintptr) bool {
			if buf == nil {
				buf = sockio.GetBuffer()
			}
			for {
				n, rerr = syscall.Read(int(fd), buf[:fl.memory.chunk()])
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
			return errors.Join(err, rerr)
		}
		if n == 0 {
			sockio.PutBuffer(buf)
			return fl.in.CloseWrite()
		}
		fl.memory.moved(int64(fl.bytesIn.Add(uint64(n)) + fl.bytesOut.Load()))
		m, err := fl.in.TryWrite(buf[:n])
		var rest []byte
		if m < n {
			rest = bytes.Clone(buf[m:n]) // it may wait for long: no more than that is held meanwhile
		}
		sockio.PutBuffer(buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if err := fl.deliver(rest, s); err != nil {
			return err
		}
	}
}

// deliver queues b for the container, and waits where there is no room.
func (fl *flow) deliver(b []byte, s *stall) error {
	for len(b) > 0 {
		n, err := fl.in.TryWrite(b)
		b = b[n:]
		switch {
		case errors.Is(err, unix.EAGAIN):
			if !s.begin() {
				return unix.ECONNRESET
			}
			<-fl.in.Writable() // an abort makes it writable too
			s.end()
		case err != nil:
			return err
		}
	}
	return nil
}
