package dns

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestDrainWaitsForAnswersFromOutside pauses a server that has asked outside: what was asked is answered, and nothing new is read.
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
	drained := make(chan struct{})
	go func() {
		s.Drain(time.Hour)
		close(drained)
	}()
	select {
	case <-drained:
		t.Error("drained while a query is being asked")
	default:
	}
	close(may)
	r, err := client.ReadMsg()
	if err != nil || len(r.Answer) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	<-drained
}
