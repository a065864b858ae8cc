package stack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	vswitch "github.com/usernet/usernet/switch"
)

// TestPlainSYNIsNothingElse changes a plain SYN in each way that netstack is to look at.
func TestPlainSYNIsNothingElse(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		ip := header.IPv4MinimumSize
		if v6 {
			ip = header.IPv6MinimumSize
		}
		for name, c := range map[string]struct {
			change func([]byte) []byte
			want   bool
		}{
			"as it is":      {func(p []byte) []byte { return p }, true},
			"with ECN":      {func(p []byte) []byte { p[ip+13] |= 0xc0; return p }, true},
			"acknowledging": {func(p []byte) []byte { p[ip+13] |= 0x10; return p }, false},
			"with a FIN":    {func(p []byte) []byte { p[ip+13] |= 0x01; return p }, false},
			"with data":     {func(p []byte) []byte { return lengthen(v6, append(p, 'x')) }, false},
			"padded":        {func(p []byte) []byte { return append(p, 0) }, false},
			"cut short":     {func(p []byte) []byte { return p[:len(p)-1] }, false},
			"empty":         {func([]byte) []byte { return nil }, false},
			"with multipath TCP": {func(p []byte) []byte {
				p[ip+12] = 0x60
				return lengthen(v6, append(p, 30, 4, 0, 0))
			}, false},
			"of another protocol": {func(p []byte) []byte {
				p[map[bool]int{false: 9, true: 6}[v6]] = 17
				return p
			}, false},
			"of another version": {func(p []byte) []byte { p[0] ^= 0x20; return p }, false},
		} {
			p := c.change(slices.Clone(synFrame(v6, 1000, 0x50).Payload[0]))
			if _, got := plainSYN(v6, p); got != c.want {
				t.Errorf("IPv6 %v: %s: plain %v", v6, name, got)
			}
		}
	}
	for name, change := range map[string]func([]byte){
		"options":          func(p []byte) { p[0] = 0x46 },
		"more fragments":   func(p []byte) { p[6] |= 0x20 },
		"a fragment":       func(p []byte) { p[7] = 1 },
		"the reserved bit": func(p []byte) { p[6] |= 0x80 },
	} {
		p := slices.Clone(synFrame(false, 1000, 0x50).Payload[0])
		if change(p); func() bool { _, ok := plainSYN(false, p); return ok }() {
			t.Errorf("with %s it counts as plain", name)
		}
	}
}

// lengthen makes a packet's length that of p.
func lengthen(v6 bool, p []byte) []byte {
	if v6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-header.IPv6MinimumSize))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	}
	return p
}

// answering decides by the destination's port, and says which SYNs went past netstack.
type answering struct {
	mirror
	direct chan bool
}

func (a *answering) HandleTCP(r *TCPRequest) {
	a.direct <- r.whole != nil
	switch r.Dst.Port() {
	case 1:
		r.Refuse()
	case 2:
		r.Unreachable(false)
	case 3:
		panic("as a test")
	case 4:
		r.Bypassed()
	default:
		if c, err := r.Accept(); err == nil {
			_, _ = c.TryWrite([]byte("x"))
			_ = c.CloseWrite()
			_ = c.Close()
		}
	}
}

// TestSYNsPastNetstack: what a container notices of a decision is the same whichever way its SYN has gone.
func TestSYNsPastNetstack(t *testing.T) {
	g, sw := newNetwork(t)
	a := &answering{mirror: mirror{g: g}, direct: make(chan bool, 10)}
	g.SetHandler(a)
	container, err := New(Config{MAC: linkMAC(9), MTU: 1500, Switch: sw, Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.9.0.9/24"), netip.MustParsePrefix("fd09::9/64")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = container.Close() })
	l, err := g.ListenTCP(netip.MustParseAddrPort("10.9.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct{ src, outside, gateway string }{
		{"10.9.0.9", "192.0.2.1", "10.9.0.1"}, {"fd09::9", "2001:db8::1", "fd09::1"},
	} {
		src, gateway := netip.MustParseAddr(c.src), netip.MustParseAddr(c.gateway)
		for _, s := range []struct {
			g    *Gateway
			addr netip.Addr
			mac  net.HardwareAddr
		}{
			{container, netip.MustParseAddr(c.outside), linkMAC(1)},
			{container, gateway, linkMAC(1)},
			{g, src, linkMAC(9)},
		} {
			err := s.g.s.AddStaticNeighbor(nic, protoOf(s.addr), addressOf(s.addr), tcpip.LinkAddress(s.mac))
			if err != nil {
				t.Fatal(err)
			}
		}
		dial := func(to netip.Addr, port uint16, timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			conn, err := container.DialTCP(ctx, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(to, port))
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
		outside := netip.MustParseAddr(c.outside)
		for port, want := range map[uint16]string{1: "refused", 2: "network", 3: "refused", 5: ""} {
			err := dial(outside, port, 20*time.Second)
			if failed := err != nil; failed != (want != "") || failed && !strings.Contains(err.Error(), want) {
				t.Errorf("%s port %d: %v, want %q", c.outside, port, err, want)
			}
			if !<-a.direct {
				t.Errorf("%s port %d: the SYN went through netstack", c.outside, port)
			}
		}
		if err := dial(outside, 4, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that is made elsewhere: %v", err)
		}
		if !<-a.direct {
			t.Errorf("one that is made elsewhere went through netstack")
		}
	}
	_, err = container.DialTCP(
		t.Context(), netip.MustParseAddrPort("10.9.0.9:0"), netip.MustParseAddrPort("10.9.0.1:80"),
	)
	if err != nil || len(a.direct) > 0 {
		t.Errorf("the gateway's own listener: %v", err)
	}
	waitUntilNoneIsPending(t, g)
}

// TestSYNsForNetstack: to these addresses nobody connects, and netstack does with them what it did.
func TestSYNsForNetstack(t *testing.T) {
	g, _ := newNetwork(t)
	g.SetHandler(&deciding{mirror: mirror{g: g}})
	for _, dst := range []string{"10.9.0.255", "10.9.0.77", "255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0",
		"169.254.1.1"} {
		f := synFrame(false, 1000, 0x50)
		copy(f.Payload[0][16:], netip.MustParseAddr(dst).AsSlice())
		if g.takeSYN(f) {
			t.Errorf("a SYN to %s went past netstack", dst)
		}
	}
	for name, change := range map[string]func(*vswitch.Frame){
		"one hop left":  func(f *vswitch.Frame) { f.Payload[0][8] = 1 },
		"to a group":    func(f *vswitch.Frame) { f.Ethernet()[0] |= 1 },
		"to port 0":     func(f *vswitch.Frame) { copy(f.Payload[0][22:], []byte{0, 0}) },
		"a super-frame": func(f *vswitch.Frame) { f.PutVirtio(vswitch.Virtio{GSO: vswitch.GSOTCPv4, GSOSize: 1000}) },
		"in pieces":     func(f *vswitch.Frame) { f.Payload = [][]byte{f.Payload[0][:20], f.Payload[0][20:]} },
		"of another type": func(f *vswitch.Frame) {
			binary.BigEndian.PutUint16(f.Header[vswitch.VirtioHeaderLen+12:], vswitch.EtherTypeIPv6)
		},
	} {
		f := synFrame(false, 1000, 0x50)
		if change(f); g.takeSYN(f) {
			t.Errorf("%s: it went past netstack", name)
		}
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// answersTwice drops a SYN, waits for the next between the same ends, and panics.
type answersTwice struct {
	mirror
	first, second, end chan struct{}
	seen               bool
}

func (a *answersTwice) HandleTCP(r *TCPRequest) {
	if a.seen {
		close(a.second)
		<-a.end
		r.Drop()
		return
	}
	a.seen = true
	r.Drop()
	close(a.first)
	<-a.second
	panic("as a test")
}

// TestAPanicAfterTheAnswerLeavesTheNextSYN: what is pending between the same ends by then is another.
func TestAPanicAfterTheAnswerLeavesTheNextSYN(t *testing.T) {
	g, _ := newNetwork(t)
	a := &answersTwice{
		mirror: mirror{g: g}, first: make(chan struct{}), second: make(chan struct{}), end: make(chan struct{}),
	}
	var log lockedBuffer
	g.link.log = slog.New(slog.NewTextHandler(&log, nil))
	g.SetHandler(a)
	for _, passed := range []chan struct{}{a.first, a.second} {
		if !g.takeSYN(synFrame(false, 1000, 0x50)) {
			t.Fatal("the SYN went to netstack")
		}
		<-passed
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), "answered twice"); {
		if time.Now().After(deadline) {
			t.Fatalf("nothing says that it was answered twice: %s", log.String())
		}
	}
	if n := pendingOf(g); n != 1 {
		t.Errorf("%d SYNs are pending, want that which is being decided about", n)
	}
	close(a.end)
	waitUntilNoneIsPending(t, g)
}

// TestAPanicOfNetstackEndsTheSYN that it was given after the decision.
func TestAPanicOfNetstackEndsTheSYN(t *testing.T) {
	g, _ := newNetwork(t)
	g.tcp = nil
	a := &answering{mirror: mirror{g: g}, direct: make(chan bool, 1)}
	g.SetHandler(a)
	f := synFrame(false, 1000, 0x50)
	copy(f.Payload[0][22:], []byte{0, 1}) // to be refused
	if !g.takeSYN(f) {
		t.Fatal("the SYN went to netstack")
	}
	<-a.direct
	waitUntilNoneIsPending(t, g)
}

func pendingOf(g *Gateway) int {
	g.syns.mu.Lock()
	defer g.syns.mu.Unlock()
	return len(g.syns.byID)
}

func waitUntilNoneIsPending(t *testing.T, g *Gateway) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); pendingOf(g) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d SYNs are pending for ever", pendingOf(g))
		}
	}
}
