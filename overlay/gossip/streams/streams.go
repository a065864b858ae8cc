// Package streams bounds what connections of others take of this process, for memberlist: it accepts any number, reads
// up to 20 MiB of each into memory, and finds out behind that whether the sender knows the key.
//
// The central idea: a memberlist.Transport in the place of memberlist's own, which closes connections beyond a share,
// and those that send beyond a share (package budget). Shares are by address, so that one stranger leaves room for
// others. It changes nothing for datagrams.
//
//	t, err := streams.New(&memberlist.NetTransportConfig{...})
//	config.Transport = t
package streams

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/internal/budget"
)

// Shares of the connections that are open at a time, and of the bytes that they have sent: what hosts send each other
// by them has about 1 MiB at most. memberlist needs some three times as much memory as was sent.
const (
	maxStreams, maxStreamsFromAddr = 256, 16
	maxBytes, maxBytesFromAddr     = 64 << 20, 8 << 20
)

var errTooMuch = errors.New("more bytes than its share")

// Bounds are those of connections of one kind. Make them with NewBounds.
type Bounds struct{ streams, bytes *budget.Budget }

// NewBounds makes bounds of which nothing is used.
func NewBounds() *Bounds {
	return &Bounds{budget.New(maxStreamsFromAddr, maxStreams), budget.New(maxBytesFromAddr, maxBytes)}
}

// take counts a connection until it is closed; nil: it is beyond its share.
func (b *Bounds) take(c net.Conn) *stream {
	from := client(c.RemoteAddr())
	if !b.streams.Acquire(from, 1) {
		return nil
	}
	return &stream{Conn: c, bounds: b, from: from}
}

// client is whose share a connection's is: that of its address, or of a subnet of IPv6, as a host has all of it.
func client(from net.Addr) string {
	const subnetBits = 64
	ap, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return from.String()
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, subnetBits).Masked().String()
	}
	return a.String()
}

// stream is a connection that counts.
type stream struct {
	net.Conn
	bounds *Bounds
	from   string

	mu     sync.Mutex // guards the rest
	read   int64
	closed bool
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= 0 || s.closed {
		return n, err
	}
	if !s.bounds.bytes.Acquire(s.from, int64(n)) {
		return 0, errTooMuch
	}
	s.read += int64(n)
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.bounds.bytes.Release(s.from, s.read)
		s.bounds.streams.Release(s.from, 1)
	}
	return s.Conn.Close()
}

// Transport is memberlist's sockets with bounds. Make it with New, end it with Shutdown.
type Transport struct {
	*memberlist.NetTransport
	bounds  *Bounds
	streams chan net.Conn
	once    sync.Once
	stop    chan struct{} // closed by Shutdown: nobody takes connections any more
	ended   chan struct{} // closed when nothing comes from the sockets any more
	passes  sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// New listens.
func New(cfg *memberlist.NetTransportConfig) (*Transport, error) {
	sockets, err := memberlist.NewNetTransport(cfg)
	if err != nil {
		return nil, err
	}
	t := &Transport{NetTransport: sockets, bounds: NewBounds(), streams: make(chan net.Conn),
		stop: make(chan struct{}), ended: make(chan struct{})}
	t.passes.Go(t.pass)
	return t, nil
}

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// pass passes on what the sockets accept.
func (t *Transport) pass() {
	for {
		select {
		case <-t.ended:
			return
		case c := <-t.NetTransport.StreamCh():
			t.Pass(c, t.bounds)
		}
	}
}

// Pass gives memberlist a connection, or closes it where it is beyond its share of the bounds.
func (t *Transport) Pass(c net.Conn, b *Bounds) {
	s := b.take(c)
	if s == nil {
		_ = c.Close() // a stranger's, who is told nothing else
		return
	}
	select {
	case t.streams <- s:
	case <-t.stop:
		_ = s.Close()
	}
}

// Shutdown implements memberlist.Transport.
func (t *Transport) Shutdown() (err error) {
	t.once.Do(func() {
		close(t.stop)
		err = t.NetTransport.Shutdown() // waits for its readers, and they for who takes what they have accepted
		close(t.ended)
		t.passes.Wait()
	})
	return err
}
