package forwarder

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

var (
	peerHere  = netip.MustParseAddrPort("172.30.0.2:40000") // a container of this host
	peerThere = netip.MustParseAddrPort("172.30.0.9:80")    // and of another
	allowAll  = func() error { return nil }
)

// otherHost is the end of connections to another host: what comes there is read by a test.
type otherHost struct {
	t     *testing.T
	port  uint16
	conns chan *net.TCPConn
	dials int
	err   error
}

func newOtherHost(t *testing.T) *otherHost {
	h := &otherHost{t: t, conns: make(chan *net.TCPConn, 8)}
	h.port = listen(t, func(c *net.TCPConn) { h.conns <- c })
	return h
}

func (h *otherHost) dial(context.Context) (PeerConn, error) {
	h.dials++
	if h.err != nil {
		return PeerConn{}, h.err
	}
	c, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), h.port).String())
	if err != nil {
		return PeerConn{}, err
	}
	defer c.Close()
	fd, err := sockio.Dup(c.(*net.TCPConn))
	return PeerConn{FD: fd, Local: sockio.LocalAddr(fd)}, errors.Join(err, sockio.SetLinger(fd, true))
}

// service makes sockets of the namespace lead to a service that sends back what it gets.
func (w *world) service(t *testing.T) {
	t.Helper()
	w.direct.Store(int32(listen(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
		_ = c.Close()
	})))
}

// TestPeersAreFlows makes a connection with a container of another host in each direction, which is listed, counted
// and relayed, and ends with its halves.
func TestPeersAreFlows(t *testing.T) {
	for direction, counter := range map[string]string{"out": "tcp_sockets_outbound", "in": "tcp_sockets_inbound"} {
		w, other := newWorld(t, noIdlePipes(t)), newOtherHost(t)
		w.service(t)
		p := Peer{Inside: peerHere, Outside: peerThere, Allowed: allowAll, Dial: other.dial}
		begin := w.ConnectPeer
		if direction == "in" {
			begin = w.AcceptPeer
		}
		if err := begin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		c := <-other.conns
		flows := w.Flows()
		if len(flows) != 1 || flows[0].Path != PathSockets || flows[0].Direction != direction ||
			flows[0].Inside != peerHere || flows[0].Outside != peerThere ||
			flows[0].HostSide.Port() != c.RemoteAddr().(*net.TCPAddr).AddrPort().Port() {
			t.Errorf("listed: %+v", flows)
		}
		if n := w.Counters()[counter]; n != 1 {
			t.Errorf("%s is %d", counter, n)
		}
		_, _ = c.Write([]byte("hello"))
		_ = c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Errorf("%q came back, %v", b, err)
		}
		eventually(t, func() error {
			if n := len(w.Flows()); n > 0 {
				return errors.New("the flow is still there")
			}
			return nil
		})
	}
}

// TestPeersThatAreNone has the connection fail in each way: the error is told, and nothing is left.
func TestPeersThatAreNone(t *testing.T) {
	errTest := errors.New("of a test")
	for name, test := range map[string]struct {
		change  func(*Config)
		prepare func(w *world, o *otherHost, p *Peer)
		dials   int // that were begun by ConnectPeer
		accepts int // and by AcceptPeer
	}{
		"no socket at hand": {prepare: func(w *world, _ *otherHost, _ *Peer) { w.direct.Store(0) }},
		"the other host does not": {prepare: func(_ *world, o *otherHost, _ *Peer) { o.err = errTest },
			dials: 1, accepts: 1},
		"the rules refuse": {prepare: func(_ *world, _ *otherHost, p *Peer) {
			p.Allowed = func() error { return errTest }
		}},
		"the container does not take": {prepare: func(w *world, _ *otherHost, _ *Peer) { w.direct.Store(1) }, dials: 1},
		"too many connections":        {change: func(c *Config) { c.Limits = Limits{TCP: 1} }},
	} {
		for _, way := range []string{"ConnectPeer", "AcceptPeer"} {
			t.Run(name+", "+way, func(t *testing.T) {
				w, other := newWorld(t, test.change), newOtherHost(t)
				w.service(t)
				p := Peer{Inside: peerHere, Outside: peerThere, Allowed: allowAll, Dial: other.dial}
				if test.prepare != nil {
					test.prepare(w, other, &p)
				}
				if test.change != nil { // one is there already, and one is all that may be
					w.acquireUse(peerHere.Addr(), useTCP)
				}
				begin, dials := w.ConnectPeer, test.dials
				if way == "AcceptPeer" {
					begin, dials = w.AcceptPeer, test.accepts
				}
				if err := begin(t.Context(), p); err == nil {
					t.Error("there is a connection")
				}
				if other.dials != dials || len(w.Flows()) != 0 {
					t.Errorf("%d were dialed, want %d; %d flows are left", other.dials, dials, len(w.Flows()))
				}
				select { // what was dialed is reset
				case c := <-other.conns:
					_ = c.SetReadDeadline(time.Now().Add(time.Minute))
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
						t.Errorf("the other host sees %v", err)
					}
				default:
				}
			})
		}
	}
}

// TestPeersEnd resets connections with other hosts by their ends, and by the rules; others stay.
func TestPeersEnd(t *testing.T) {
	w, other := newWorld(t, nil), newOtherHost(t)
	w.service(t)
	connect := func() *net.TCPConn {
		t.Helper()
		p := Peer{Inside: peerHere, Outside: peerThere, Allowed: allowAll, Dial: other.dial}
		err := w.ConnectPeer(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return <-other.conns
	}
	isReset := func(c *net.TCPConn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the other host sees %v", err)
		}
		eventually(t, func() error {
			if len(w.Flows()) > 0 {
				return errors.New("a flow is left")
			}
			return nil
		})
	}
	c := connect()
	if err := w.ConnectPeer(t.Context(), Peer{Inside: peerHere, Outside: peerThere}); err != nil || other.dials != 1 {
		t.Errorf("its SYN, sent again, was dialed (%d): %v", other.dials, err)
	}
	if n := w.CloseFlows("tcp", peerHere, peerThere); n != 1 {
		t.Errorf("%d were closed", n)
	}
	isReset(c)
	c = connect()
	w.AbortContainer(peerHere.Addr())
	isReset(c)
	c = connect()
	w.EndPeers(func(from, to netip.AddrPort, outside netip.Addr) bool {
		if from != peerHere || to != peerThere || outside != peerThere.Addr() {
			t.Errorf("asked about %v to %v", from, to)
		}
		return false
	})
	if n := len(w.Flows()); n != 1 {
		t.Errorf("%d flows, of one that may be", n)
	}
	w.EndPeers(func(netip.AddrPort, netip.AddrPort, netip.Addr) bool { return true })
	isReset(c)
}

// TestPeersAreDetached hands a plain connection with another host to another forwarder.
func TestPeersAreDetached(t *testing.T) {
	w, other := newWorld(t, nil), newOtherHost(t)
	w.service(t)
	err := w.ConnectPeer(t.Context(), Peer{Inside: peerHere, Outside: peerThere, Allowed: allowAll, Dial: other.dial})
	if err != nil {
		t.Fatal(err)
	}
	c := <-other.conns
	list := w.DetachFlows()
	if len(list) != 1 {
		t.Fatalf("%d were detached", len(list))
	}
	next := newWorld(t, nil)
	if err := next.ResumeFlow(list[0]); err != nil {
		t.Fatal(err)
	}
	if flows := next.Flows(); len(flows) != 1 || flows[0].Path != PathSockets {
		t.Errorf("listed: %+v", flows)
	}
	_, _ = c.Write([]byte("hello"))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q came back, %v", b, err)
	}
}

// TestAPortThatIsTakenAnew has a container end its half of a connection with another host, which the other end leaves
// open, and connect from the same port again. Its SYN, sent again, ends nothing.
func TestAPortThatIsTakenAnew(t *testing.T) {
	w, other := newWorld(t, nil), newOtherHost(t)
	w.direct.Store(int32(listen(t, func(c *net.TCPConn) { _ = c.Close() })))
	p := Peer{Inside: peerHere, Outside: peerThere, Seq: 1, Allowed: allowAll, Dial: other.dial}
	if err := w.ConnectPeer(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	first := <-other.conns
	if b, err := io.ReadAll(first); err != nil || len(b) > 0 {
		t.Fatalf("the other host sees %q, %v", b, err)
	}
	if err := w.ConnectPeer(t.Context(), p); err != nil || w.ends[flowKey{peerHere, peerThere}][0].outlived != nil {
		t.Errorf("a SYN that is sent again ends the connection, %v", err)
	}
	p.Seq = 2
	eventually(t, func() error {
		if err := w.ConnectPeer(t.Context(), p); err != nil {
			return err
		}
		if other.dials < 2 {
			return errors.New("the SYN is dropped")
		}
		return nil
	})
	second := <-other.conns
	if _, err := first.Write([]byte("late")); err == nil { // it may be taken before the reset comes
		_ = first.SetReadDeadline(time.Now().Add(time.Minute))
		eventually(t, func() error {
			if _, err := first.Write([]byte("late")); err == nil {
				return errors.New("the first connection is still there")
			}
			return nil
		})
	}
	if b, err := io.ReadAll(second); err != nil || len(b) > 0 {
		t.Errorf("the new connection: %q, %v", b, err)
	}
}

// TestAPortThatIsTakenAnewForTheHost is the same for a connection that bypasses the gateway to the host.
func TestAPortThatIsTakenAnewForTheHost(t *testing.T) {
	w := newWorld(t, nil)
	w.direct.Store(int32(listen(t, func(c *net.TCPConn) { _ = c.Close() })))
	accepted := make(chan *net.TCPConn, 8)
	dst := netip.AddrPortFrom(netip.MustParseAddr("172.30.0.1"), listen(t, func(c *net.TCPConn) { accepted <- c }))
	answer := func(seq uint32) string {
		s := newFakeSYN(dst.String())
		s.seq, s.bypass = seq, true
		w.HandleTCP(s)
		return <-s.decided
	}
	if got := answer(1); got != "answered" {
		t.Fatalf("the SYN was %s", got)
	}
	first := <-accepted
	if b, err := io.ReadAll(first); err != nil || len(b) > 0 {
		t.Fatalf("the host sees %q, %v", b, err)
	}
	if got := answer(1); got != "dropped" || len(w.Flows()) != 1 {
		t.Errorf("a SYN that is sent again was %s; flows: %+v", got, w.Flows())
	}
	eventually(t, func() error {
		if got := answer(2); got != "answered" {
			return errors.New("the SYN was " + got)
		}
		return nil
	})
	<-accepted
}
