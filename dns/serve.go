package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/usernet/usernet/internal/isolate"
)

// Bounds of what clients hold by TCP.
const (
	maxConns      = 64   // connections of one client
	maxTotalConns = 1024 // and of all
	// maxPipelined is how many questions of one connection are being answered at once (RFC 7766, 6.2.1.1); further
	// ones wait in the connection. It also bounds the answers that wait for a client that does not read: 16 of 64
	// KiB.
	maxPipelined = 16
	// tcpIdle is how long a connection waits for the next question; RFC 7766, 6.2.3 asks for seconds.
	tcpIdle = 10 * time.Second
	// tcpWriteTimeout is how long a client may leave an answer unread. The kernel buffers some 100 KiB before that
	// counts.
	tcpWriteTimeout = 2 * time.Second
)

// maxDatagram is the longest question over UDP, in bytes; longer ones are cut, and so malformed.
const maxDatagram = 4096

// headerSize is that of a DNS message's header, in bytes (RFC 1035, 4.1.1).
const headerSize = 12

// ServePacket answers UDP queries until pc is closed, or its read deadline has passed. id says which client has a
// source address. Replies that pc does not take at once are dropped and counted.
func (s *Server) ServePacket(pc net.PacketConn, id func(net.Addr) Client) error {
	defer s.track(pc)()
	send := datagramSender(pc)
	reply := func(b []byte, to net.Addr) {
		if send(b, to) != nil {
			s.counters.unsent.Add(1)
		}
	}
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			if s.ctx.Err() != nil {
				return net.ErrClosed
			}
			return err
		}
		isolate.Do(s.cfg.Logger, "answering a DNS query", func() {
			s.answerDatagram(buf[:n], id(from), func(b []byte) { reply(b, from) })
		}, "from", from)
	}
}

// answerDatagram answers the query b of a client.
func (s *Server) answerDatagram(b []byte, c Client, reply func([]byte)) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		s.counters.malformed.Add(1)
		if refusal := formatError(b); refusal != nil {
			reply(refusal)
		}
		return
	}
	if m.Response {
		return
	}
	size := dns.MinMsgSize
	if o := m.IsEdns0(); o != nil {
		size = max(size, int(o.UDPSize()))
	}
	s.answer(c, m, func(r *dns.Msg) {
		r.Truncate(size)
		if b, err := r.Pack(); err == nil {
			reply(b)
		}
	})
}

// formatError is the answer to a message that makes no sense: the header alone. nil where it is none to a question.
func formatError(b []byte) []byte {
	const response, opcodeAndRD = 0x80, 0x79 // bits of the header's third byte
	if len(b) < headerSize || b[2]&response != 0 {
		return nil
	}
	return []byte{b[0], b[1], response | b[2]&opcodeAndRD, dns.RcodeFormatError, 0, 0, 0, 0, 0, 0, 0, 0}
}

// ServeListener answers TCP queries until l is closed, or its deadline has passed.
func (s *Server) ServeListener(l net.Listener, id func(net.Addr) Client) error {
	defer s.track(l)()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		client := id(c.RemoteAddr()).ID
		if s.ctx.Err() != nil || !s.connections.Acquire(client, 1) {
			s.counters.limited.Add(1)
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.connections.Release(client, 1)
			isolate.Do(s.cfg.Logger, "serving a DNS connection", func() { s.serveConn(c, id) }, "container", client)
		})
	}
}

// serveConn answers the questions of one connection and closes it. The client is looked up anew for each question, as
// what it may ask for changes.
func (s *Server) serveConn(c net.Conn, id func(net.Addr) Client) {
	defer s.track(c)()
	defer c.Close()
	d := &dns.Conn{Conn: c}
	var write sync.Mutex // one answer at a time
	pending := make(chan struct{}, maxPipelined)
	defer func() { // all answers are written, or have failed
		for range maxPipelined {
			pending <- struct{}{}
		}
	}()
	for s.ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
		m, err := d.ReadMsg()
		if err != nil {
			return
		}
		pending <- struct{}{}
		answered := sync.OnceFunc(func() { <-pending })
		reply := func(r *dns.Msg) {
			defer answered()
			write.Lock()
			defer write.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(tcpWriteTimeout))
			if d.WriteMsg(r) != nil {
				s.counters.unsent.Add(1)
				_ = c.Close() // so that the answers behind it do not wait as well
			}
		}
		if !isolate.Do(s.cfg.Logger, "answering a DNS query", func() { s.answer(id(c.RemoteAddr()), m, reply) }) {
			answered()
			return
		}
	}
}

// track has Close close c, until what it returns is called.
func (s *Server) track(c io.Closer) (untrack func()) {
	s.sockets.Lock()
	defer s.sockets.Unlock()
	s.sockets.open[c] = struct{}{}
	return func() {
		s.sockets.Lock()
		defer s.sockets.Unlock()
		delete(s.sockets.open, c)
	}
}

// Drain returns when nothing is being asked outside any more and what was is answered, or after patience. It does not
// keep new queries off: pause their sockets before, with a read deadline that has passed.
func (s *Server) Drain(patience time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	select {
	case <-s.pending.idle():
	case <-ctx.Done():
	}
}

// pendingQuestions counts the questions that were sent on and are not answered yet.
type pendingQuestions struct {
	sync.Mutex
	n       int
	waiters []chan struct{} // closed when n is 0
}

func (p *pendingQuestions) add() {
	p.Lock()
	defer p.Unlock()
	p.n++
}

func (p *pendingQuestions) done() {
	p.Lock()
	defer p.Unlock()
	if p.n--; p.n > 0 {
		return
	}
	for _, w := range p.waiters {
		close(w)
	}
	p.waiters = nil
}

// idle returns a channel that is closed when there are none.
func (p *pendingQuestions) idle() <-chan struct{} {
	p.Lock()
	defer p.Unlock()
	w := make(chan struct{})
	if p.n == 0 {
		close(w)
	} else {
		p.waiters = append(p.waiters, w)
	}
	return w
}
