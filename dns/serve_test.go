package dns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestDrainWaitsForAnswersFromOutside pauses a server that has asked outside: what was asked is answered, and nothing
// new is read.
func TestDrainWaitsForAnswersFromOutside(t *testing.T) {
	asked, may := make(chan struct{}, 1), make(chan struct{})
	up, _ := server(t, func(w dns.ResponseWriter, m *dns.Msg) {
		select {
		case asked <- struct{}{}:
		default: // it asks twice where it has to wait
		}
		<-may
		answerWith("192.0.2.7", 60)(w, m)
	})
	answer := sync.OnceFunc(func() { close(may) })
	defer answer()
	s := newServer(t, Config{})
	pc, l := bothSockets(t)
	defer pc.Close()
	defer l.Close()
	who := func(net.Addr) Client { return Client{ID: "c", Forward: true, Upstreams: []string{up}} }
	served := make(chan error, 2)
	go func() { served <- s.ServePacket(pc, who) }()
	go func() { served <- s.ServeListener(l, who) }()

	s.Drain(time.Hour) // nothing is being asked

	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	client := &dns.Conn{Conn: c}
	if err := client.WriteMsg(question("www.example.com", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	<-asked
	past := time.Unix(1, 0)
	if err := errors.Join(pc.SetReadDeadline(past), l.(*net.TCPListener).SetDeadline(past)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("paused, it serves on, or ended with %v", err)
		}
	}
	s.Drain(time.Millisecond) // does not wait longer
	waiting := func() int {
		s.pending.Lock()
		defer s.pending.Unlock()
		return len(s.pending.waiters)
	}
	before := waiting()
	drained := make(chan struct{})
	go func() {
		s.Drain(time.Hour)
		close(drained)
	}()
	for waiting() == before {
		select {
		case <-drained:
			t.Fatal("drained while a query is being asked")
		case <-time.After(time.Millisecond):
		}
	}
	answer()
	r, err := client.ReadMsg()
	if err != nil || len(r.Answer) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	<-drained
}

// flood has one client ask n different questions, and returns how many of them were refused at once.
func flood(s *Server, c Client, n int, reply func(*dns.Msg)) (refused uint64) {
	before := s.counters.limited.Load()
	for i := range n {
		s.answer(c, question(fmt.Sprintf("n%d.example", i), dns.TypeA), reply)
	}
	return s.counters.limited.Load() - before
}

func TestQuestionsAreBoundedAndEachIsAnswered(t *testing.T) {
	up, _ := server(t, silent)
	for _, test := range []struct{ questions, total, asked, refused int }{
		{100, 0, 150, 50},
		{100, 100, 150, 100}, // the half of the total is for others
	} {
		s := newServer(t, Config{Upstreams: upstreams(t, up), Questions: test.questions, TotalQuestions: test.total})
		replies := make(chan int, test.asked)
		if n := flood(s, Client{ID: "flood", Forward: true}, test.asked, func(r *dns.Msg) { replies <- r.Rcode }); n !=
			uint64(test.refused) {
			t.Errorf("%+v: %d were refused", test, n)
		}
		if !s.questions.Acquire("other", 1) {
			t.Errorf("%+v: a neighbour has no room", test)
		}
		s.Close() // ends the questions that nobody answers
		for range test.asked {
			if code := <-replies; code != dns.RcodeServerFailure {
				t.Fatalf("%+v: %s", test, dns.RcodeToString[code])
			}
		}
	}
}

// TestDefaultQuestions: so many at a time that asking them takes a busy machine longer than servers have for an answer.
func TestDefaultQuestions(t *testing.T) {
	s, n := newServer(t, Config{}), 0
	for s.questions.Acquire("flood", 1) {
		n++
	}
	if n != DefaultQuestions {
		t.Errorf("a client may ask %d at a time, want %d", n, DefaultQuestions)
	}
}

// TestRepliesThatWaitHoldNoSlot is about clients that have their replies wait.
func TestRepliesThatWaitHoldNoSlot(t *testing.T) {
	up, _ := server(t, answerWith("192.0.2.8", 0))
	s := newServer(t, Config{Upstreams: upstreams(t, up), Questions: 20})
	release, waiting := make(chan struct{}), make(chan struct{}, 20)
	flood(s, outsider, 20, func(*dns.Msg) {
		waiting <- struct{}{}
		<-release
	})
	for range 20 {
		<-waiting
	}
	if n := s.questions.Used(); n != 0 {
		t.Errorf("%d slots are held by replies", n)
	}
	s.Drain(time.Millisecond) // does not wait longer
	close(release)
	s.Drain(time.Hour)
}

// pipes is a listener of connections without any buffer.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestConnectionsOfWhoDoesNotReadEnd(t *testing.T) {
	up, _ := server(t, answerWith("192.0.2.8", 0))
	s := newServer(t, Config{Upstreams: upstreams(t, up)})
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	c := Client{ID: "alice", Forward: true}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeListener(l, func(net.Addr) Client { return c }) }()
	for _, name := range []string{"web", "www.example"} { // answered at once, and from outside
		ours, theirs := net.Pipe()
		l.conns <- theirs
		d := &dns.Conn{Conn: ours}
		_ = ours.SetWriteDeadline(time.Now().Add(20 * time.Second))
		for d.WriteMsg(question(name, dns.TypeA)) == nil { // until the server has closed
		}
		_ = ours.Close()
		eventually(t, func() bool {
			return s.connections.Used() == 0 && s.questions.Used() == 0
		}, "a client that does not read keeps something")
	}
	if s.counters.unsent.Load() == 0 {
		t.Error("no reply was counted as unsent")
	}
	l.Close()
	<-ended
}
