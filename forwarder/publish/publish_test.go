package publish

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/internal/sockio"
)

var (
	loopback = netip.MustParseAddr("127.0.0.1")
	inside4  = netip.MustParseAddr("172.30.0.2")
	inside6  = netip.MustParseAddr("fd30::2")
)

// event is what a Handler was told.
type event struct {
	what   string
	port   *Port
	client netip.AddrPort
	text   string
	fd     int // of a connection, which the test closes
}

// recorder is a Handler that tells the test.
type recorder struct{ events chan event }

func (r *recorder) HandleConn(p *Port, fd int, client netip.AddrPort) {
	r.events <- event{what: "connection", port: p, client: client, fd: fd}
}

func (r *recorder) HandleDatagram(p *Port, d sockio.Datagram) {
	r.events <- event{what: "datagram", port: p, client: d.From, text: string(d.Payload[0])}
}

func (r *recorder) PortClosed(p *Port) { r.events <- event{what: "closed", port: p} }

// next is what comes next, of a kind.
func (r *recorder) next(t *testing.T, what string) event {
	t.Helper()
	for {
		select {
		case e := <-r.events:
			if e.what == what {
				return e
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no %s for 30 s", what)
		}
	}
}

// rig is a publisher with its table and its handler.
type rig struct {
	*Publisher
	*recorder
}

func newRig(t *testing.T, table *Table) *rig {
	t.Helper()
	reactor, err := sockio.NewReactor()
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{recorder: &recorder{make(chan event, 1000)}}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	g.Publisher = New(Config{Table: table, Reactor: reactor, Logger: log, Handler: g.recorder})
	t.Cleanup(func() {
		g.Publisher.Close()
		reactor.Close()
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *rig) publish(t *testing.T, list ...Binding) []Bound {
	t.Helper()
	bound, err := g.Publish(t.Context(), inside4, inside6, list)
	if err != nil {
		t.Fatal(err)
	}
	return bound
}

// port is the only one that is published.
func (g *rig) port(t *testing.T) *Port {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.ports {
		return p
	}
	t.Fatal("no port is published")
	return nil
}

func (g *rig) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.ports)
}

// freePort is a port of the loopback that nobody has, a moment ago at least.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestWhatComesIsHanded(t *testing.T) {
	g := newRig(t, NewTable())
	bound := g.publish(t, Binding{HostIP: loopback, Port: 80, Proto: TCP},
		Binding{HostIP: loopback, Port: 53, Proto: UDP})
	c, err := net.Dial("tcp", bound[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := g.next(t, "connection")
	if e.client.String() != c.LocalAddr().String() || e.port.Bound() != bound[0] {
		t.Errorf("%+v", e)
	}
	_ = unix.Close(e.fd)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("what the handler closes is reset: %v", err)
	}
	u, err := net.Dial("udp", bound[1].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	e = g.next(t, "datagram")
	if e.client.String() != u.LocalAddr().String() || e.text != "question" || e.port.Dual() {
		t.Errorf("%+v", e)
	}
	var to sockio.RawAddr
	to.Set(e.client)
	if err := e.port.Use(func(fd int) error { return sockio.Send(fd, []byte("answer"), &to, nil) }); err != nil {
		t.Fatal(err)
	}
	_ = u.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 100)
	if n, err := u.Read(b); err != nil || string(b[:n]) != "answer" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if err := g.Unpublish(bound); err != nil {
		t.Fatal(err)
	}
	g.next(t, "closed")
	g.next(t, "closed")
	if err := e.port.Use(func(int) error { return nil }); !errors.Is(err, unix.EBADF) {
		t.Errorf("the socket of a port that is gone can be used: %v", err)
	}
	if _, err := net.Dial("tcp", bound[0].Host.String()); err == nil {
		t.Error("a port that is gone accepts")
	}
}

func TestInsideIsOfTheClientsFamily(t *testing.T) {
	for _, test := range []struct {
		in4, in6 netip.Addr
		v6       bool
		want     netip.Addr
	}{
		{inside4, inside6, false, inside4}, {inside4, inside6, true, inside6},
		{inside4, netip.Addr{}, true, inside4}, {netip.Addr{}, inside6, false, inside6},
	} {
		p := &Port{in4: test.in4, in6: test.in6, bound: Bound{Port: 80}}
		if got := p.Inside(test.v6); got != netip.AddrPortFrom(test.want, 80) {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

// TestBindings publishes in each way that there is to choose host ports.
func TestBindings(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := uint16(taken.Addr().(*net.TCPAddr).Port)
	free := freePort(t)
	g := newRig(t, NewTable())
	for _, test := range []struct {
		what  string
		b     Binding
		hosts []uint16 // nil: any; one, or the first of the range
		n     int
		err   error
	}{
		{"a port of its own choice", Binding{Port: 80, Proto: TCP}, nil, 1, nil},
		{"a certain port", Binding{HostPort: free, Port: 80, Proto: TCP}, []uint16{free}, 1, nil},
		{"a port that is taken", Binding{HostPort: busy, Port: 80, Proto: TCP}, nil, 0, unix.EADDRINUSE},
		{"the first that is free of some", Binding{HostPort: busy, HostEnd: busy + 50, Port: 80, Proto: TCP}, nil, 1,
			nil},
		{"several of its own choice", Binding{Port: 80, End: 84, Proto: UDP}, nil, 5, nil},
		{"another transport", Binding{Port: 80, Proto: "sctp"}, nil, 0, errors.New("SCTP")},
		{"an address that the host has not", Binding{HostIP: netip.MustParseAddr("192.0.2.77"), Port: 80, Proto: TCP},
			nil, 0, unix.EADDRNOTAVAIL},
	} {
		if !test.b.HostIP.IsValid() {
			test.b.HostIP = loopback
		}
		bound, err := g.Publish(t.Context(), inside4, inside6, []Binding{test.b})
		switch {
		case test.err == nil && err != nil, test.err != nil && err == nil:
			t.Errorf("%s: %v, %v", test.what, bound, err)
		case err != nil && !errors.Is(err, test.err) && !strings.Contains(err.Error(), test.err.Error()):
			t.Errorf("%s: %v", test.what, err)
		case len(bound) != test.n:
			t.Errorf("%s: %v", test.what, bound)
		}
		for i, b := range bound {
			if test.hosts != nil && b.Host.Port() != test.hosts[i] || b.Port != 80+uint16(i) || b.Proto !=
				test.b.Proto {
				t.Errorf("%s: %+v", test.what, b)
			}
		}
		if err := g.Unpublish(bound); err != nil || g.count() != 0 {
			t.Errorf("%s: %d ports are left, %v", test.what, g.count(), err)
		}
	}
}

func TestPublishIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := uint16(taken.Addr().(*net.TCPAddr).Port)
	g := newRig(t, NewTable())
	before := leak.Descriptors(t)
	_, err = g.Publish(t.Context(), inside4, inside6, []Binding{
		{HostIP: loopback, Port: 80, End: 90, Proto: TCP},
		{HostIP: loopback, Port: 80, Proto: UDP},
		{HostIP: loopback, HostPort: busy, Port: 80, Proto: TCP},
	})
	var bind *BindError
	if !errors.As(err, &bind) || !errors.Is(err, unix.EADDRINUSE) || bind.Host.Port() != busy || bind.Need != 13 {
		t.Errorf("%v", err)
	}
	before.NoneLeft(t)
	if g.count() != 0 || len(g.cfg.Table.ports) != 0 {
		t.Errorf("%d ports are still bound", g.count())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Publish(ctx, inside4, inside6, []Binding{{HostIP: loopback, Port: 80, End: 90,
		Proto: TCP}}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestBothFamiliesAreOneSocket, of which one family can be taken away.
func TestBothFamiliesAreOneSocket(t *testing.T) {
	table := NewTable()
	g := newRig(t, table)
	bound := g.publish(t, Binding{Port: 80, Proto: TCP})
	if len(bound) != 2 || g.count() != 1 || !g.port(t).Dual() {
		t.Fatalf("%v with %d sockets", bound, g.count())
	}
	port := bound[0].Host.Port()
	for _, v6 := range []bool{false, true} {
		if !table.PublishedEverywhere(v6, port, TCP) || table.PublishedEverywhere(v6, port, UDP) {
			t.Errorf("IPv6 %v: it is published by another transport", v6)
		}
	}
	i := slices.IndexFunc(bound, func(b Bound) bool { return b.Host.Addr().Is4() })
	if err := g.Unpublish(bound[i : i+1]); err != nil {
		t.Fatal(err)
	}
	if table.PublishedEverywhere(false, port, TCP) || !table.PublishedEverywhere(true, port, TCP) || g.port(t).Dual() {
		t.Error("another family stays than was asked for")
	}
	if _, err := net.Dial("tcp4", netip.AddrPortFrom(loopback, port).String()); err == nil {
		t.Error("a family that was taken away accepts")
	}
	other := newRig(t, NewTable())
	if err := other.Unpublish(bound); err != nil || g.count() != 1 {
		t.Error("another network's publisher unpublishes it")
	}
}

// TestPauses: a port that is left alone for want of descriptors is watched again, but not once the publisher has
// stopped, so that what waits there is accepted by the next daemon.
func TestPauses(t *testing.T) {
	g := newRig(t, NewTable())
	bound := g.publish(t, Binding{HostIP: loopback, Port: 80, Proto: TCP})
	p := g.port(t)
	watched := func() (yes bool) {
		_ = p.Use(func(fd int) error { yes = g.cfg.Reactor.Watches(fd); return nil })
		return yes
	}
	p.pause()
	c, err := net.Dial("tcp", bound[0].Host.String()) // which waits in the queue
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = unix.Close(g.next(t, "connection").fd)
	p.pause()
	g.Stop()
	p.watchAgain() // as by a timer that was late
	if watched() {
		t.Error("a port is watched again after the publisher has stopped")
	}
	p.pause() // as by a handler that was late
	p.watchAgain()
	if watched() {
		t.Error("a pause after that had an end")
	}
	if _, err := net.Dial("tcp", bound[0].Host.String()); err != nil {
		t.Errorf("the queue of a stopped port is closed: %v", err)
	}
}

// TestPausesAreLoggedOnceASecond pauses a port as often as a lack of descriptors that lasts does.
func TestPausesAreLoggedOnceASecond(t *testing.T) {
	g := newRig(t, NewTable())
	g.publish(t, Binding{HostIP: loopback, Port: 80, Proto: TCP})
	var text strings.Builder
	g.Publisher.cfg.Logger = slog.New(slog.NewTextHandler(&text, nil))
	p := g.port(t)
	began := time.Now()
	const pauses = 1000
	for range pauses {
		p.pause()
	}
	g.Stop()
	n := strings.Count(text.String(), "no descriptors left")
	if most := 1 + int(time.Since(began)/time.Second); n == 0 || n > most {
		t.Errorf("%d pauses are %d lines in the log; %d are possible at most", pauses, n, most)
	}
}

func TestClosedPublishers(t *testing.T) {
	g := newRig(t, NewTable())
	bound := g.publish(t, Binding{HostIP: loopback, Port: 80, Proto: TCP})
	g.Publisher.Close()
	g.Publisher.Close()
	if _, err := net.Dial("tcp", bound[0].Host.String()); err == nil {
		t.Error("a port outlives its publisher")
	}
	before := leak.Descriptors(t)
	if _, err := g.Publish(t.Context(), inside4, inside6, []Binding{{HostIP: loopback, Port: 80,
		Proto: TCP}}); !errors.Is(err, unix.ESHUTDOWN) {
		t.Errorf("a closed publisher publishes: %v", err)
	}
	before.NoneLeft(t)
}

// passed makes a socket as a service manager, or another daemon, passes it.
func passed(t *testing.T, at string, udp, dual bool) (fd int, host netip.AddrPort) {
	t.Helper()
	listen := sockio.ListenTCP
	if udp {
		listen = sockio.ListenUDP
	}
	fd, err := listen(netip.MustParseAddrPort(at), sockio.ListenOptions{Dual: dual})
	if err != nil {
		t.Fatal(err)
	}
	return fd, sockio.LocalAddr(fd)
}

func TestInheritedSocketsStayOpen(t *testing.T) {
	table := NewTable()
	g := newRig(t, table)
	fd, at := passed(t, "127.0.0.1:0", false, false)
	got, proto, err := table.Inherit(fd)
	if err != nil || got != at || proto != TCP {
		t.Fatalf("%s, %s, %v", got, proto, err)
	}
	if twice, err := sockio.DupFD(fd); err != nil {
		t.Fatal(err)
	} else if _, _, err := table.Inherit(twice); err == nil {
		t.Error("two sockets are inherited for one port")
	}
	b := Binding{HostIP: at.Addr(), HostPort: at.Port(), Port: 80, Proto: TCP}
	for range 2 { // published, and published again
		bound := g.publish(t, b)
		if _, err := g.Publish(t.Context(), inside4, inside6, []Binding{b}); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("an inherited socket is published twice: %v", err)
		}
		if err := g.Unpublish(bound); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := net.Dial("tcp", at.String()); err != nil {
		t.Errorf("the socket was closed with the port: %v", err)
	} else {
		_ = c.Close()
	}
	for what, fd := range map[string]int{"no descriptor": 1 << 20, "no socket": func() int {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}()} {
		if _, _, err := table.Inherit(fd); err == nil {
			t.Errorf("%s is inherited", what)
		}
	}
	// One for both families serves either.
	fd, at = passed(t, "[::]:0", true, true)
	if _, proto, err := table.Inherit(fd); err != nil || proto != UDP {
		t.Fatal(proto, err)
	}
	bound := g.publish(t, Binding{HostPort: at.Port(), Port: 53, Proto: UDP})
	if len(bound) != 2 || g.count() != 2 {
		t.Errorf("%v with %d sockets", bound, g.count())
	}
}

// TestAdoptedSocketsArePublished hands the ports of one table to another.
func TestAdoptedSocketsArePublished(t *testing.T) {
	one, two := NewTable(), NewTable()
	g, next := newRig(t, one), newRig(t, two)
	list := []Binding{{HostIP: loopback, Port: 80, Proto: TCP}, {Port: 81, Proto: TCP},
		{HostIP: loopback, Port: 53, Proto: UDP}}
	bound := g.publish(t, list...)
	set := new(handover.Set)
	if err := one.HandOver(set); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	fds := set.TakeKind(handover.Published)
	if len(fds) != 3 {
		t.Fatalf("%d sockets are handed over", len(fds))
	}
	for _, fd := range fds {
		if err := two.Adopt(fd); err != nil {
			t.Fatal(err)
		}
	}
	g.Publisher.Close()
	var again []Binding
	for _, b := range bound {
		if b.Host.Addr() == loopback {
			again = append(again, b.Binding())
		}
	}
	again = append(again, Binding{HostPort: bound[1].Host.Port(), Port: 81, Proto: TCP})
	c, err := net.Dial("tcp", bound[0].Host.String()) // between the two daemons
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	next.publish(t, again...)
	_ = unix.Close(next.next(t, "connection").fd)
	if n := len(two.adopted); n != 0 {
		t.Errorf("%d sockets were not used", n)
	}
	fd, _ := passed(t, "127.0.0.1:0", false, false)
	open := leak.Files(t, fd)
	if err := two.Adopt(fd); err != nil {
		t.Fatal(err)
	}
	two.CloseAdopted()
	leak.Closed(t, open...)
	if err := two.Adopt(1 << 20); err == nil {
		t.Error("no descriptor is adopted")
	}
}

// sink records what is stored.
type sink map[string]bool

func (s sink) Put(id handover.ID, _ int) { s[id.Name] = true }
func (s sink) Remove(id handover.ID)     { delete(s, id.Name) }
func (s sink) Barrier()                  {}

func TestPortsAreStored(t *testing.T) {
	table, stored := NewTable(), sink{}
	g := newRig(t, table)
	table.SetFDStore(stored)
	fd, at := passed(t, "127.0.0.1:0", false, false)
	if _, _, err := table.Inherit(fd); err != nil {
		t.Fatal(err)
	}
	// the service manager has that one
	g.publish(t, Binding{HostIP: at.Addr(), HostPort: at.Port(), Port: 80, Proto: TCP})
	if len(stored) != 0 {
		t.Errorf("an inherited socket is stored: %v", stored)
	}
	bound := g.publish(t, Binding{Port: 80, Proto: UDP})
	for name := range stored {
		if strings.Contains(name, ":") || !strings.HasSuffix(name, "-dual") || !strings.HasPrefix(name, "udp-") {
			t.Errorf("the name is %q", name)
		}
	}
	if len(stored) != 1 {
		t.Errorf("stored: %v", stored)
	}
	if err := g.Unpublish(bound); err != nil || len(stored) != 0 {
		t.Errorf("still stored: %v, %v", stored, err)
	}
	g.publish(t, Binding{HostIP: loopback, Port: 80, Proto: UDP})
	table.SetFDStore(nil)
	g.Publisher.Close()
	if len(stored) != 1 {
		t.Errorf("what is closed at the daemon's end is to be there for the next: %v", stored)
	}
}

// TestBindErrorsSayWhatToDo holds the texts, of which the first part is Docker's.
func TestBindErrorsSayWhatToDo(t *testing.T) {
	for err, want := range map[error]string{
		unix.EADDRINUSE:     "port is already allocated",
		unix.EACCES:         "ip_unprivileged_port_start",
		unix.EADDRNOTAVAIL:  "does not have this address",
		unix.EMFILE:         "ulimit -Hn",
		unix.ENFILE:         "fs.file-max",
		errors.New("other"): "other",
	} {
		e := &BindError{Host: netip.MustParseAddrPort("0.0.0.0:80"), Proto: TCP, Need: 5, Err: err}
		if text := e.Error(); !strings.HasPrefix(text, "Bind for 0.0.0.0:80 failed: ") ||
			!strings.Contains(text, want) {
			t.Errorf("%v: %s", err, text)
		}
		if !errors.Is(e, err) {
			t.Errorf("%v is hidden", err)
		}
		e.Standalone = true
		if text := e.Error(); strings.Contains(text, "daemon") || !strings.Contains(text, want) {
			t.Errorf("%v, without a daemon: %s", err, text)
		}
	}
}
