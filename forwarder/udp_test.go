package forwarder

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// echoUDP answers each datagram with itself, on the host's loopback.
func echoUDP(t testing.TB) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

func (w *world) socket(t testing.TB, port uint16) net.PacketConn {
	t.Helper()
	c, err := w.container.ListenUDP(netip.AddrPortFrom(containerAddr, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func gatewayPort(port uint16) *net.UDPAddr {
	return &net.UDPAddr{IP: gatewayAddr.AsSlice(), Port: int(port)}
}

func TestDatagramsComeBack(t *testing.T) {
	w := newWorld(t, nil)
	port := echoUDP(t)
	c := w.socket(t, 4000)
	b := make([]byte, 1<<16)
	for _, size := range []int{0, 1, 1472, 1473, 9000, sockio.MaxDatagram} {
		eventually(t, func() error { // one may be lost
			want := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := c.WriteTo(want, gatewayPort(port)); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, from, err := c.ReadFrom(b)
			if err == nil && (!bytes.Equal(b[:n], want) || from.String() != gatewayPort(port).String()) {
				err = fmt.Errorf("%d bytes came back from %s as %d", size, from, n)
			}
			return err
		})
	}
	if n := len(w.Flows()); n != 1 {
		t.Errorf("one socket has %d associations", n)
	}
}

func TestAssociationsEndWithTheirContainer(t *testing.T) {
	w := newWorld(t, nil)
	port := echoUDP(t)
	before := measure(t)
	payload := []byte("x")
	for i := range uint16(100) {
		w.HandleUDP(packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 1000+i),
			Dst: netip.AddrPortFrom(gatewayAddr, port), TTL: 64, Payload: payload})
	}
	if n := len(w.Flows()); n != 100 {
		t.Fatalf("%d associations", n)
	}
	w.AbortContainer(containerAddr)
	if n := len(w.Flows()); n != 0 {
		t.Errorf("%d are left", n)
	}
	before.back(t)
}

// TestQuestionsAreBrief: what goes to port 53 alone needs no more than a resolver waits.
func TestQuestionsAreBrief(t *testing.T) {
	w := newWorld(t, nil)
	brief := func(src, dst uint16) bool {
		from := netip.AddrPortFrom(containerAddr, src)
		w.HandleUDP(packet.Datagram{Src: from, Dst: netip.AddrPortFrom(gatewayAddr, dst), TTL: 64,
			Payload: []byte("x")})
		return w.udp.Get(from).Brief()
	}
	for _, test := range []struct {
		what     string
		src, dst uint16
		want     bool
	}{
		{"an association", 1, 5000, false},
		{"a question", 2, 53, true},
		{"an association that asks a question too", 1, 53, false},
		{"an association that began with a question", 2, 5000, false},
	} {
		if got := brief(test.src, test.dst); got != test.want {
			t.Errorf("%s: brief %v", test.what, got)
		}
	}
}

func TestLimitsAreEachContainersOwn(t *testing.T) {
	shared := NewShared(Limits{UDP: 5}, Limits{})
	t.Cleanup(func() { _ = shared.Close() })
	w := newWorld(t, func(c *Config) { c.Limits, c.Shared = Limits{UDP: 3}, shared })
	send := func(host byte, port uint16) bool {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 30, 0, host}), port)
		w.HandleUDP(packet.Datagram{Src: src, Dst: netip.AddrPortFrom(gatewayAddr, 9), TTL: 64, Payload: []byte("x")})
		return w.udp.Get(src) != nil
	}
	have := func(host byte) (n int) {
		for _, a := range w.udp.All() {
			if a.inside.Addr().As4()[3] == host {
				n++
			}
		}
		return n
	}
	for i, want := range []int{1, 2, 3, 3} { // the fourth takes another's place
		if got := send(2, uint16(1+i)); !got || have(2) != want {
			t.Errorf("association %d of the first container: %v, and %d are there", i, got, have(2))
		}
	}
	for i, want := range []int{1, 2, 2} { // the third is beyond the daemon's limit
		if got := send(3, uint16(1+i)); !got || have(3) != want {
			t.Errorf("association %d of the second container: %v, and %d are there", i, got, have(3))
		}
	}
	if send(4, 1) {
		t.Error("a container that has none to give up is beyond the daemon's limit")
	}
	w.AbortContainer(containerAddr)
	if !send(3, 9) {
		t.Error("what the first container had is not free again")
	}
	if n := w.Counters()["udp_limit"]; n != 3 {
		t.Errorf("%d were counted as beyond a limit", n)
	}
}

// stalledInside delivers no datagram until it is told to.
type stalledInside struct {
	insideGateway
	waits, goOn chan struct{}
}

func (s stalledInside) WriteUDP(src, dst netip.AddrPort, payload [][]byte, size int) error {
	select {
	case s.waits <- struct{}{}:
	default:
	}
	<-s.goOn
	return s.insideGateway.WriteUDP(src, dst, payload, size)
}

// TestLostDatagramsAreCounted has a peer send more than the association's socket holds.
func TestLostDatagramsAreCounted(t *testing.T) {
	stall := stalledInside{waits: make(chan struct{}, 1), goOn: make(chan struct{})}
	w := newWorld(t, func(c *Config) {
		stall.insideGateway = c.Inside.(insideGateway)
		c.Inside = stall
	})
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	port := peer.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	w.HandleUDP(packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 4000), TTL: 64, Payload: []byte("x"),
		Dst: netip.AddrPortFrom(gatewayAddr, port)})
	_, from, err := peer.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.udp.All()[0].sock.Use(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10)
	}); err != nil {
		t.Fatal(err)
	}
	sent := uint64(0)
	send := func() {
		if _, err := peer.WriteToUDPAddrPort(make([]byte, 1000), from); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	send()
	<-stall.waits
	for range 2000 {
		send()
	}
	close(stall.goOn)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		send() // a datagram says what was lost before it came
		f := w.Flows()[0]
		if f.PacketsLost > 0 && f.PacketsLost == w.Counters()["udp_lost"] && f.PacketsIn+f.PacketsLost == sent {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d were sent, %d came, %d lost, %d counted", sent, f.PacketsIn, f.PacketsLost,
				w.Counters()["udp_lost"])
		}
	}
}

func TestDatagramsAllocateNothing(t *testing.T) {
	w := newWorld(t, nil)
	// nobody reads it: an answer would be counted
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	port := sink.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	p := packet.Datagram{Src: netip.AddrPortFrom(containerAddr, 4000), Dst: netip.AddrPortFrom(gatewayAddr, port),
		TTL: 64, Payload: make([]byte, 1000)}
	pieces := [][]byte{p.Payload}
	w.HandleUDP(p)
	more := p
	more.MorePending = true
	for what, send := range map[string]func(){
		"one":  func() { w.HandleUDP(p) },
		"many": func() { w.HandleUDP(more); w.HandleUDP(more); w.Flush() },
	} {
		send()
		if n := testing.AllocsPerRun(1000, send); n >= 1 && !raceEnabled {
			t.Errorf("%s outward: %v allocations", what, n)
		}
	}
	// all by the container's netstack
	if n := testing.AllocsPerRun(1000, func() { _ = w.gateway.WriteUDP(p.Dst, p.Src, pieces, 0) }); n >= 6 &&
		!raceEnabled {
		t.Errorf("a datagram inward allocates %v times", n)
	}
}

func BenchmarkDatagramOutward(b *testing.B) {
	for _, together := range []int{1, sockio.MaxBatch} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			w := newWorld(b, nil)
			c, err := net.ListenPacket("udp4", "127.0.0.1:0") // nobody reads: the kernel drops what does not fit
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
			p := packet.Datagram{
				Src: netip.AddrPortFrom(containerAddr, 4000), Dst: netip.AddrPortFrom(gatewayAddr, port), TTL: 64,
				Payload:     make([]byte, 64),
				MorePending: together > 1,
			}
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				w.HandleUDP(p)
				if n%together == 0 {
					w.Flush()
				}
			}
		})
	}
}

// TestNetworksHaveReactorsOfTheirOwn holds that one network's sockets do not wait for another's handlers, that networks
// beyond the bound share, and that a reactor is used again.
func TestNetworksHaveReactorsOfTheirOwn(t *testing.T) {
	shared := NewShared(Limits{}, Limits{})
	t.Cleanup(func() { _ = shared.Close() })
	var list []*Forwarder
	for range maxReactors + 6 {
		f, err := New(Config{Shared: shared})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	users := map[*sockio.Reactor]int{}
	for _, f := range list {
		users[f.reactor]++
	}
	if len(users) != maxReactors || len(shared.reactors) != maxReactors {
		t.Errorf("%d networks have %d reactors of %d", len(list), len(users), len(shared.reactors))
	}
	for r, n := range users {
		if n > 2 || shared.reactors[r] != n {
			t.Errorf("a reactor has %d users and counts %d", n, shared.reactors[r])
		}
	}
	for _, f := range list {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	f, err := New(Config{Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(shared.reactors) != maxReactors || users[f.reactor] == 0 {
		t.Errorf("a network after others has a new reactor; there are %d", len(shared.reactors))
	}
}
