package forwarder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// fakeGateway is a network in memory: one container, whose connections are fakeConns.
type fakeGateway struct {
	fakeInside
	dialled chan *fakeConn // what DialTCP has made
	err     error          // of DialTCP
}

func (g *fakeGateway) DialTCP(_ context.Context, src, dst netip.AddrPort) (Conn, error) {
	if g.err != nil {
		return nil, g.err
	}
	c := newFakeConn()
	g.dialled <- c
	return c, nil
}

func (g *fakeGateway) WriteUDP(_, _ netip.AddrPort, _ [][]byte, _ int) error { return nil }
func (g *fakeGateway) WriteICMP(_, _ netip.Addr, _ []byte) error             { return nil }

// fakeSYN says how it was decided.
type fakeSYN struct {
	src, dst netip.AddrPort
	bypass   bool
	conn     *fakeConn // what Accept returns; nil: it fails
	decided  chan string
}

func newFakeSYN(dst string) *fakeSYN {
	return &fakeSYN{src: netip.MustParseAddrPort("172.30.0.2:1000"), dst: netip.MustParseAddrPort(dst), conn: newFakeConn(), decided: make(chan string, 2)}
}

func (s *fakeSYN) Ends() (src, dst netip.AddrPort) { return s.src, s.dst }
func (s *fakeSYN) CanBypass() bool                 { return s.bypass }
func (s *fakeSYN) Answered()                       { s.decided <- "answered" }
func (s *fakeSYN) Refuse()                         { s.decided <- "refused" }
func (s *fakeSYN) Drop()                           { s.decided <- "dropped" }

func (s *fakeSYN) Unreachable(host bool) {
	if host {
		s.decided <- "host unreachable"
	} else {
		s.decided <- "network unreachable"
	}
}

func (s *fakeSYN) Accept() (Conn, error) {
	s.decided <- "accepted"
	if s.conn == nil {
		return nil, errors.New("the handshake failed")
	}
	return s.conn, nil
}

// fakeConn is a container's end of which the test is the container: it reads what was sent to it from out, and sends with put.
// Its buffer towards the container holds room bytes.
type fakeConn struct {
	mu                 sync.Mutex
	in, out            bytes.Buffer
	room               int
	finIn, finOut      bool
	err                error
	onReset            func()
	readable, writable chan struct{}
	closed             int
}

func newFakeConn() *fakeConn {
	return &fakeConn{room: 1 << 20, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put is what the container sends; fin ends it.
func (c *fakeConn) put(b string, fin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.WriteString(b)
	c.finIn = c.finIn || fin
	signal(c.readable)
}

// take is what the container has received and not taken yet, which makes room, and whether nothing more comes.
func (c *fakeConn) take() (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.out.String()
	c.out.Reset()
	signal(c.writable)
	return b, c.finOut
}

// fail ends the connection, as a reset by the container does.
func (c *fakeConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	if c.onReset != nil {
		c.onReset()
	}
	signal(c.readable)
	signal(c.writable)
}

func (c *fakeConn) TryRead(w io.Writer) error {
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

func (c *fakeConn) TryWrite(b []byte) (int, error) {
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

func (c *fakeConn) OnReset(f func()) (stop func()) {
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

func (c *fakeConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finOut = true
	return c.err
}

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	return nil
}

func (c *fakeConn) Readable() <-chan struct{} { return c.readable }
func (c *fakeConn) Writable() <-chan struct{} { return c.writable }
func (c *fakeConn) SetBuffers(int)            {}
func (c *fakeConn) Abort()                    { c.fail(unix.ECONNABORTED) }

var (
	_ Gateway = (*fakeGateway)(nil)
	_ SYN     = (*fakeSYN)(nil)
	_ Conn    = (*fakeConn)(nil)
)
