package forwarder

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/usernet/usernet/stack"
)

// dialTimeout is how long a destination may take to answer. The container's own attempts end after about two minutes.
const dialTimeout = 30 * time.Second

// flow is one TCP connection from or to a container.
type flow struct {
	f                         *Forwarder
	direction                 string
	inside, outside, hostSide netip.AddrPort
	created                   time.Time
	in                        *stack.Conn // the container's end at the gateway
	direct                    *SocketConn // or inside the container's network namespace
	host                      stream
	bytesIn, bytesOut         atomic.Uint64
	halfClosed                atomic.Bool
	once                      sync.Once
}

// HandleTCP dials the host first and completes the container's handshake only then.
func (f *Forwarder) HandleTCP(r *stack.TCPRequest) {
	src, dst := r.Src, r.Dst
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
	if !f.take(src.Addr(), useDialling) {
		r.Drop() // it asks again
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	host, err := f.dialHost(ctx, target)
	cancel()
	f.give(src.Addr(), useDialling)
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
	if !f.take(src.Addr(), useTCP) {
		reset(host)
		r.Refuse()
		return
	}
	f.give(src.Addr(), useTCP) // run takes it again
	in, err := r.Accept()
	if err != nil {
		reset(host)
		return
	}
	f.counters[countTCP].Add(1)
	f.run(&flow{f: f, direction: "out", inside: src, outside: dst, in: in, host: host})
}

// dialHost connects to the outside.
func (f *Forwarder) dialHost(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	if local := f.outbound(to.Addr()); local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: local.AsSlice()}
	}
	if f.cfg.OutboundInterface != "" && !to.Addr().IsLoopback() {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), f.cfg.OutboundInterface) }), err)
		}
	}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// run copies both ways until both directions have ended.
func (f *Forwarder) run(fl *flow) {
	if !f.take(fl.inside.Addr(), useTCP) {
		fl.abort()
		return
	}
	defer f.give(fl.inside.Addr(), useTCP)
	fl.created = time.Now()
	fl.hostSide = localOf(fl.host)
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		fl.abort()
		return
	}
	f.flows[fl] = struct{}{}
	f.wg.Add(1)
	f.mu.Unlock()
	defer f.wg.Done()
	done := make(chan error, 1)
	out, in := fl.outward, fl.inward
	if fl.direct != nil {
		out = func() error { return splice(fl.host, fl.direct, &fl.bytesOut) }
		in = func() error { return splice(fl.direct, fl.host, &fl.bytesIn) }
	}
	half := func(copy func() error) error { // an error in one direction ends both
		err := copy()
		fl.halfClosed.Store(true)
		if err != nil {
			fl.abort()
		}
		return err
	}
	go func() { done <- half(out) }()
	_ = half(in) // an error has been acted upon
	<-done
	fl.close()
	f.mu.Lock()
	delete(f.flows, fl)
	f.mu.Unlock()
}

// outward copies from the container to the host, and passes its end on.
func (fl *flow) outward() error {
	w := &countingWriter{w: fl.host, n: &fl.bytesOut}
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	fl.in.Queue.EventRegister(&entry)
	defer fl.in.Queue.EventUnregister(&entry)
	for {
		_, err := fl.in.Endpoint.Read(w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			if w.err != nil {
				return w.err
			}
			continue
		case *tcpip.ErrWouldBlock:
			<-readable // an abort makes it readable too
			continue
		case *tcpip.ErrClosedForReceive:
			return fl.host.CloseWrite()
		default:
			return errors.New(err.String())
		}
	}
}

type countingWriter struct {
	w   io.Writer
	n   *atomic.Uint64
	err error
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(uint64(n))
	c.err = err
	return n, err
}

// bufferSize holds the largest datagram, and what one read of a stream brings.
const bufferSize = 64 << 10

// streamChunk is how much of a stream is read at once: 45 segments at MTU 1500. Netstack puts at most 65375 bytes into
// one super-frame, and 64 KiB would leave a small second one behind each.
const streamChunk = 45 * 1448

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// inward copies from the host to the container, and passes its end on. Between reads it holds no buffer.
func (fl *flow) inward() error {
	raw, err := fl.host.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var n int
		var rerr error
		buf := (*[]byte)(nil)
		err := raw.Read(func(fd uintptr) bool {
			if buf == nil {
				buf = buffers.Get().(*[]byte)
			}
			for {
				n, rerr = syscall.Read(int(fd), (*buf)[:streamChunk])
				if rerr != syscall.EINTR {
					break
				}
			}
			if rerr == syscall.EAGAIN {
				buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		})
		if err != nil || rerr != nil {
			if buf != nil {
				buffers.Put(buf)
			}
			return errors.Join(err, rerr)
		}
		if n == 0 {
			buffers.Put(buf)
			return fl.in.CloseWrite()
		}
		fl.bytesIn.Add(uint64(n))
		_, werr := fl.in.Write((*buf)[:n])
		buffers.Put(buf)
		if werr != nil {
			return werr
		}
	}
}

// close lets both ends finish what they have.
func (fl *flow) close() {
	if fl.direct != nil {
		_ = fl.direct.Close()
	} else {
		_ = fl.in.Close()
	}
	_ = fl.host.Close()
}

// abort resets both ends: a reset on one side is one on the other.
func (fl *flow) abort() {
	fl.once.Do(func() {
		if fl.direct != nil {
			reset(fl.direct)
		} else {
			fl.in.Endpoint.Abort()
			_ = fl.in.Close()
		}
		reset(fl.host)
	})
}

// reset closes a host connection with RST.
func reset(c stream) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
