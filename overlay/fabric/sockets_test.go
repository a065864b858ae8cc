package fabric

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/hostconn"
	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

// fakeSockets makes connections as a test says.
type fakeSockets struct {
	connect, accept func(context.Context, Connection) error

	mu    sync.Mutex
	asked []Connection
}

func (s *fakeSockets) Connect(ctx context.Context, c Connection) error {
	s.note(c)
	return s.connect(ctx, c)
}

func (s *fakeSockets) Accept(ctx context.Context, c Connection) error {
	s.note(c)
	return s.accept(ctx, c)
}

func (s *fakeSockets) note(c Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, c)
}

func (s *fakeSockets) all() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

var errOfTest = errors.New("no socket")

// refuses is one that makes none.
func refuses() *fakeSockets {
	no := func(context.Context, Connection) error { return errOfTest }
	return &fakeSockets{connect: no, accept: no}
}

// socketSides are two hosts with a network whose connections go from socket to socket.
func socketSides(t *testing.T, isSealed bool, toA, toB Sockets) (a, b *side) {
	t.Helper()
	sides := [2]*side{}
	for i, host := range []overlay.HostID{hostA, hostB} {
		sides[i] = newSideAt(t, Config{Host: host, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey()},
			byte(2+i), func(c *NetworkConfig) { c.Sealed = isSealed })
	}
	a, b = sides[0], sides[1]
	meet(t, a, b)
	for _, p := range [][2]*side{{a, b}, {b, a}} {
		peer := p[1].peer()
		peer.TCP, peer.Sockets = p[1].fabric.TCPAddrs(), true
		must(t, p[0].fabric.SetPeers([]Peer{peer}))
	}
	for _, s := range sides {
		waitFor(t, "answer of the other host", func() bool { return s.fabric.Peers()[0].Alive })
	}
	a.link.SetSockets(toA)
	b.link.SetSockets(toB)
	return a, b
}

// syn is a container's SYN to port 80 of another's.
func syn(from, to *guest, port uint16, options []byte, data string) *vswitch.Frame {
	h := make([]byte, tcpHeaderLen, 100)
	binary.BigEndian.PutUint16(h, port)
	binary.BigEndian.PutUint16(h[2:], 80)
	h[12], h[tcpFlags] = byte((tcpHeaderLen+len(options))/4)<<4, tcpSYN
	return frame(to.mac, from.mac, vswitch.EtherTypeIPv4,
		ipPacket(from.ip4, to.ip4, 6, append(append(h, options...), data...)))
}

func TestASYNBecomesAConnection(t *testing.T) {
	for _, isSealed := range []bool{true, false} {
		t.Run(fmt.Sprintf("sealed %v", isSealed), func(t *testing.T) {
			running := leak.Goroutines()
			t.Cleanup(func() { running.NoneLeft(t) })
			said := make(chan string, 1)
			toA := &fakeSockets{connect: func(ctx context.Context, c Connection) error {
				conn, err := c.Dial(ctx)
				if err != nil {
					return err
				}
				if _, err = conn.Write([]byte("hello")); err == nil {
					err = conn.CloseWrite()
				}
				answer, _ := io.ReadAll(conn)
				conn.Finish()
				said <- string(answer)
				return err
			}}
			toB := &fakeSockets{accept: func(ctx context.Context, c Connection) error {
				conn, err := c.Dial(ctx)
				if err != nil {
					return err
				}
				b, _ := io.ReadAll(conn)
				_, err = conn.Write(append(b, " to you"...))
				conn.Finish()
				return err
			}}
			a, b := socketSides(t, isSealed, toA, toB)
			a.guest.port.Receive(syn(a.guest, b.guest, 40000, nil, ""))
			if got := <-said; got != "hello to you" {
				t.Errorf("the other end said %q", got)
			}
			from, to := netip.AddrPortFrom(a.guest.ip4, 40000), netip.AddrPortFrom(b.guest.ip4, 80)
			for _, s := range []*fakeSockets{toA, toB} {
				c := s.all()[0]
				if c.From != from || c.To != to || c.Sealed != isSealed || s == toA && c.MAC != a.guest.mac {
					t.Errorf("asked for %+v", c)
				}
			}
			if got := b.guest.take(); len(got) > 0 {
				t.Error("the SYN came as a frame too")
			}
		})
	}
}

// TestSYNsThatGoByFrames has each SYN arrive as a frame, and once more when it is sent again.
func TestSYNsThatGoByFrames(t *testing.T) {
	for name, test := range map[string]struct {
		options []byte
		data    string
		change  func(b *side, p *Peer) // what is known of the other host
		toA     func() *fakeSockets
		asked   int
	}{
		"no socket at hand":             {toA: refuses, asked: 1},
		"usual options, no socket":      {options: usualOptions, toA: refuses, asked: 1},
		"TCP fast open":                 {options: []byte{34, 2, 1, 1}, toA: refuses},
		"multipath TCP":                 {options: []byte{30, 4, 0, 0}, toA: refuses},
		"data in it":                    {data: "hello", toA: refuses},
		"a host of an older version":    {change: func(_ *side, p *Peer) { p.Sockets = false }, toA: refuses},
		"a host that takes no TCP":      {change: func(_ *side, p *Peer) { p.TCP = nil }, toA: refuses},
		"the other host refuses":        {toA: dials, asked: 1},
		"nothing listens at its port":   {change: atClosedPort(t), toA: dials, asked: 1},
		"the other network has frames":  {change: takesNone, toA: dials, asked: 1},
		"a fault in what makes sockets": {toA: func() *fakeSockets { return &fakeSockets{connect: panics} }, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			toA := test.toA()
			a, b := socketSides(t, true, toA, refuses())
			if test.change != nil {
				p := b.peer()
				p.TCP, p.Sockets = b.fabric.TCPAddrs(), true
				test.change(b, &p)
				must(t, a.fabric.SetPeers([]Peer{p}))
			}
			for range 2 {
				a.guest.port.Receive(syn(a.guest, b.guest, 40000, test.options, test.data))
				if got := b.guest.await(t, 1); len(got) != 1 || got[0].payload[20+tcpFlags] != tcpSYN {
					t.Errorf("%d frames came", len(got))
				}
			}
			if n := len(toA.all()); n != test.asked {
				t.Errorf("a connection was asked for %d times, want %d", n, test.asked)
			}
		})
	}
}

func panics(context.Context, Connection) error { panic("of a test") }

// dials is one that only makes the connection to the other host.
func dials() *fakeSockets {
	return &fakeSockets{connect: func(ctx context.Context, c Connection) error {
		conn, err := c.Dial(ctx)
		if err == nil {
			conn.Reset()
		}
		return err
	}}
}

// usualOptions are those of kernels, as far as they are without a choice: segment size, scale, selective
// acknowledgements.
var usualOptions = []byte{2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 1, 1}

// atClosedPort says that the other host is where nothing listens.
func atClosedPort(t *testing.T) func(*side, *Peer) {
	return func(_ *side, p *Peer) {
		f, err := New(Config{Host: hostC, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Key: seal.NewKey()})
		must(t, err)
		defer f.Close()
		p.TCP = f.TCPAddrs()
	}
}

// takesNone has the other host's network make no such connections.
func takesNone(b *side, _ *Peer) {
	b.link.held.mu.Lock()
	defer b.link.held.mu.Unlock()
	b.link.held.to = nil
}

// TestASYNThatIsSentAgain waits for the decision about the first, and is asked about again where that was dropped.
func TestASYNThatIsSentAgain(t *testing.T) {
	decide := make(chan error)
	toA := &fakeSockets{connect: func(context.Context, Connection) error { return <-decide }}
	a, b := socketSides(t, true, toA, refuses())
	send := func() { a.guest.port.Receive(syn(a.guest, b.guest, 40000, nil, "")) }
	for i := range uint64(2) {
		send()
		waitFor(t, "question", func() bool { return len(toA.all()) == int(i)+1 })
		send()
		if n := a.link.Drops()[DropHeld]; n != i+1 {
			t.Errorf("%d SYNs were dropped", n)
		}
		decide <- ErrDropSYN
		waitFor(t, "end", func() bool {
			a.link.held.mu.Lock()
			defer a.link.held.mu.Unlock()
			return len(a.link.held.held) == 0
		})
	}
	if got := b.guest.take(); len(got) > 0 {
		t.Error("a SYN that is dropped came as a frame")
	}
}

// TestAHostAsksForWhatIsNotIts asks for connections that the other host's table does not allow.
func TestAHostAsksForWhatIsNotIts(t *testing.T) {
	toB := refuses()
	a, b := socketSides(t, true, refuses(), toB)
	p := a.fabric.hosts[hostB]
	own, to := netip.AddrPortFrom(a.guest.ip4, 1), netip.AddrPortFrom(b.guest.ip4, 80)
	ask := func(vni uint32, isSealed bool, src netip.AddrPort) {
		t.Helper()
		l := &Link{f: a.fabric, cfg: NetworkConfig{VNI: vni, Sealed: isSealed}}
		l.held.init()
		if _, err := l.dialHost(t.Context(), p, src, to); !errors.Is(err, hostconn.ErrRefused) {
			t.Errorf("asked for what it may not have: %v", err)
		}
	}
	ask(testVNI, true, netip.MustParseAddrPort("10.9.0.77:1")) // nobody's
	ask(testVNI, true, to)                                     // the other host's own
	ask(testVNI, false, own)                                   // a plain one of a sealed network
	ask(testVNI+1, true, own)                                  // of a network that is not there
	if d := b.link.Drops(); d[DropSourceAddr] != 2 || d[DropPlain] != 1 || b.fabric.Drops()[DropUnknownVNI] != 1 {
		t.Errorf("counted %v and %v", d, b.fabric.Drops())
	}
	if n := len(toB.all()); n != 0 {
		t.Errorf("a container was to be connected to %d times", n)
	}
	ask(testVNI, true, own) // its own, which no socket is at hand for
	if n := len(toB.all()); n != 1 {
		t.Errorf("asked %d times for what may be", n)
	}
}

// TestAHostThatIsNotReached is left alone for a while.
func TestAHostThatIsNotReached(t *testing.T) {
	var s peerSockets
	now := time.Now()
	for i, want := range []time.Duration{30, 60, 120, 240, 480, 480} {
		s.failed(now)
		s.failed(now) // another connection at the same time
		if at := now.Add(want * time.Second); s.mayTake(at.Add(-time.Second)) || !s.mayTake(at) {
			t.Errorf("failure %d: not again after %v", i, want*time.Second)
		}
		now = now.Add(want * time.Second)
	}
	s.worked(netip.AddrPort{})
	if s.failed(now); s.mayTake(now.Add(29*time.Second)) || !s.mayTake(now.Add(30*time.Second)) {
		t.Error("what came before it worked still counts")
	}
}

// TestCloseEndsWhatIsHeld closes a network while a SYN is decided about.
// TestTheAddressThatWorkedIsTriedFirst: one that is not reached would delay each connection by a second.
func TestTheAddressThatWorkedIsTriedFirst(t *testing.T) {
	var s peerSockets
	addrs := []netip.AddrPort{
		netip.MustParseAddrPort("[2001:db8::1]:4789"),
		netip.MustParseAddrPort("[2001:db8::2]:4789"),
		netip.MustParseAddrPort("192.0.2.1:4789"),
	}
	for _, test := range []struct {
		worked netip.AddrPort
		want   []netip.AddrPort
	}{
		{addrs[1], []netip.AddrPort{addrs[1], addrs[0], addrs[2]}},
		{addrs[2], []netip.AddrPort{addrs[2], addrs[0], addrs[1]}},
		{addrs[0], addrs},
		{netip.MustParseAddrPort("192.0.2.9:4789"), addrs}, // it is not the host's any more
	} {
		s.worked(test.worked)
		if got := s.inOrder(addrs); !slices.Equal(got, test.want) {
			t.Errorf("%v worked: %v, want %v", test.worked, got, test.want)
		}
	}
	if got := new(peerSockets).inOrder(addrs); !slices.Equal(got, addrs) {
		t.Errorf("none worked yet: %v", got)
	}
}

func TestCloseEndsWhatIsHeld(t *testing.T) {
	toA := &fakeSockets{connect: func(ctx context.Context, _ Connection) error { <-ctx.Done(); return ctx.Err() }}
	a, b := socketSides(t, true, toA, refuses())
	a.guest.port.Receive(syn(a.guest, b.guest, 40000, nil, ""))
	waitFor(t, "question", func() bool { return len(toA.all()) == 1 })
	must(t, a.link.Close())
	if got := b.guest.take(); len(got) > 0 {
		t.Error("the SYN went on")
	}
}

// TestHeldSYNsAreBounded floods a network with SYNs.
func TestHeldSYNsAreBounded(t *testing.T) {
	var s heldSYNs
	s.init()
	s.to = refuses()
	defer func() { s.cancel() }()
	now := time.Now()
	key := func(i int) synKey {
		return synKey{src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 16), 2}), uint16(i))}
	}
	flood := func(from, to int, now time.Time) (taken int) {
		for i := from; i < to; i++ {
			if to, _ := s.take(key(i), true, now); to != nil {
				taken++
			}
		}
		return taken
	}
	if n := flood(0, 1<<16, now); n != maxHeld/2 || len(s.byFrames) != maxByFrames/2 {
		t.Errorf("of one container %d are held, and %d are remembered", n, len(s.byFrames))
	}
	if n := flood(1<<16, 1<<17, now); n < maxHeld/4 || len(s.byFrames) != maxByFrames/4*3 {
		t.Errorf("of another one %d are held, and %d are remembered", n, len(s.byFrames))
	}
	for i := 2; i < 6; i++ { // those that do not flood
		if n := flood(i<<16, i<<16+ownHeld, now); n != ownHeld {
			t.Errorf("of container %d, beside the floods, %d are held", i, n)
		}
	}
	for k := range s.held {
		s.decided(k, true)
	}
	for i := range 10 { // a second later, and so on, the first one floods again
		now = now.Add(time.Second)
		if n := flood(i<<10, 1<<16, now); n > heldRate {
			t.Errorf("%d are held in a second", n)
		}
		if n := flood(7<<16+i*ownRate, 7<<16+(i+1)*ownRate, now); n != ownRate {
			t.Errorf("beside the flood %d of another container are held", n)
		}
		for k := range s.held {
			s.decided(k, true)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.shares.sources.Of(key(0).src.Addr(), now)
	s.tidied = time.Time{}
	for len(s.byFrames) < maxByFrames {
		s.byFrames[key(8<<16+len(s.byFrames))] = byFrames{now, o}
		o.byFrames++
	}
	s.note(key(0), o, now.Add(2*remembersByFrames))
	if len(s.byFrames) != 1 || o.byFrames != 1 {
		t.Errorf("%d are remembered for too long, %d of one container", len(s.byFrames), o.byFrames)
	}
}

// TestStrangersAreBoundedByARate has connections begin from one address, from many of one subnet, and from many.
func TestStrangersAreBoundedByARate(t *testing.T) {
	at := netip.MustParseAddr
	now := time.Now()
	ss := newStrangers()
	begin := func(n int, from func(i int) netip.Addr) (begun int) {
		for i := range n {
			if ss.mayBegin(from(i), now) {
				begun++
			}
		}
		return begun
	}
	one := func(a string) func(int) netip.Addr { return func(int) netip.Addr { return at(a) } }
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }
	subnet := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 8: byte(i >> 8), 15: byte(i)})
	}
	if n := begin(1000, one("192.0.2.7")); n != strangerBurstFromIP {
		t.Errorf("%d begin at once from one address", n)
	}
	if n := begin(1000, subnet); n != strangerBurstFromIP {
		t.Errorf("%d begin at once from one subnet", n)
	}
	if n := begin(1000, one("192.0.2.8")); n != strangerBurstFromIP {
		t.Errorf("%d begin from an address beside them", n)
	}
	if n := begin(1<<16, many); n != strangerBurst-3*strangerBurstFromIP || ss.rates.Len() != maxStrangerRates {
		t.Errorf("%d begin from many addresses, of which %d are told apart", n, ss.rates.Len())
	}
	now = now.Add(2 * time.Second)
	if n := begin(1000, one("192.0.2.7")); n != 2*strangerRateFromIP {
		t.Errorf("%d begin in two seconds from one address", n)
	}
	now = now.Add(time.Hour)
	if n := begin(1, one("192.0.2.9")); n != 1 || ss.rates.Len() != 1 {
		t.Errorf("an hour later %d begin, and %d addresses are remembered", n, ss.rates.Len())
	}
}

// TestStrangersOfHosts have a share of their own.
func TestStrangersOfHosts(t *testing.T) {
	toB := refuses()
	a, b := socketSides(t, true, refuses(), toB)
	_ = a
	at := b.fabric.TCPAddrs()[0]
	for range 2 * maxStrangersFromIP {
		dialStranger(t, at)
	}
	waitFor(t, "strangers", func() bool {
		b.fabric.carriers.mu.Lock()
		defer b.fabric.carriers.mu.Unlock()
		return b.fabric.carriers.strangers.ofHost == 2*maxStrangersFromIP
	})
	b.fabric.tidyCarriers(time.Now().Add(strangerFor + time.Second))
	waitFor(t, "end of them", func() bool { return !b.fabric.hasStrangers() })
}

func dialStranger(t *testing.T, at netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
}
