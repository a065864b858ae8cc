package stack

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	vswitch "github.com/usernet/usernet/switch"
)

// TestPendingSYNs holds the table against a plain set, with random histories.
func TestPendingSYNs(t *testing.T) {
	const max, maxEach = 20, 8
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		p, model := newPendingSYNs(max, maxEach), map[stack.TransportEndpointID]bool{}
		for step := range 2000 {
			id := stack.TransportEndpointID{
				RemoteAddress: tcpip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}), RemotePort: uint16(r.IntN(12)),
				LocalPort: 80,
			}
			if r.IntN(2) == 0 {
				p.remove(id, true)
				delete(model, id)
				continue
			}
			each := 0
			for other := range model {
				if other.RemoteAddress == id.RemoteAddress {
					each++
				}
			}
			want := !model[id] && len(model) < max && each < maxEach
			if got := p.add(id, syn{}); got != want {
				t.Fatalf("seed %d, step %d: added %v, want %v, with %d, of them %d of this address", seed, step, got, want, len(model), each)
			}
			if want {
				model[id] = true
			}
		}
		for id := range maps.Clone(model) {
			p.remove(id, true)
		}
		if len(p.byID) > 0 {
			t.Fatalf("seed %d: left are %v", seed, p.byID)
		}
		for host := range 4 {
			if s := p.each.Of(netip.AddrFrom4([4]byte{10, 0, 0, byte(host)}), time.Now()); s.pending != 0 {
				t.Fatalf("seed %d: %d of host %d are still pending", seed, s.pending, host)
			}
		}
	}
}

func synOf(host, port int) stack.TransportEndpointID {
	return stack.TransportEndpointID{
		RemoteAddress: tcpip.AddrFrom4([4]byte{10, byte(host >> 16), byte(host >> 8), byte(host)}),
		RemotePort:    uint16(port), LocalPort: 80,
	}
}

// TestFailedAttemptsAreLimitedForEachAddress has one address send SYNs that lead to nothing, and others that connect.
func TestFailedAttemptsAreLimitedForEachAddress(t *testing.T) {
	p := newPendingSYNs(maxHandshakes, maxHandshakesEach)
	attempts := func(host int, connected bool) (n int) {
		for i := range 3 * attemptBurst {
			if id := synOf(host, i); p.add(id, syn{}) {
				n++
				p.remove(id, connected)
			}
		}
		return n
	}
	began := time.Now()
	n := attempts(1, false)
	if most := attemptBurst + int(time.Since(began).Seconds()*attemptRate) + 1; n < attemptBurst || n > most {
		t.Errorf("%d failed attempts went through, want %d to %d", n, attemptBurst, most)
	}
	if got := int(p.limited.Load()); got != 3*attemptBurst-n {
		t.Errorf("%d are counted, want %d", got, 3*attemptBurst-n)
	}
	if n := attempts(2, true); n != 3*attemptBurst {
		t.Errorf("of connections that came to be %d went through", n)
	}
	if n := attempts(3, false); n < attemptBurst {
		t.Errorf("another address had %d attempts", n)
	}
}

// TestSourcesAreBounded has more addresses than are counted one by one, of which one waits for a decision.
func TestSourcesAreBounded(t *testing.T) {
	p := newPendingSYNs(maxHandshakes, maxHandshakesEach)
	pending := synOf(0, 1)
	p.add(pending, syn{})
	for host := 1; host < 3*maxSources; host++ {
		id := synOf(host, 1)
		p.add(id, syn{})
		p.remove(id, false)
	}
	if n := p.each.Len(); n != maxSources {
		t.Errorf("%d addresses are counted", n)
	}
	later := time.Now().Add(time.Hour)
	p.each.Of(addrOf(synOf(1<<20, 1).RemoteAddress), later)
	if n := p.each.Len(); n != 2 || p.each.Of(addrOf(pending.RemoteAddress), later).pending != 1 {
		t.Errorf("an hour later %d addresses are counted, want the one that has a pending SYN and a new one", n)
	}
}

// newNetwork is a gateway on a switch.
func newNetwork(t testing.TB) (*Gateway, *vswitch.Switch) {
	t.Helper()
	sw := vswitch.New(vswitch.Config{MTU: 1500})
	g, err := New(Config{
		MAC: linkMAC(1), MTU: 1500, Switch: sw, Logger: slog.New(slog.DiscardHandler),
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, sw
}

// station is a port in a container's place, 10.9.0.N and fd09::N with linkMAC(N).
func station(t testing.TB, sw *vswitch.Switch, n byte, guard bool) *vswitch.Port {
	t.Helper()
	v6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: n})
	role := vswitch.Learning
	if guard {
		role = vswitch.Guest
	}
	port, err := sw.Connect(vswitch.PortConfig{MAC: linkMAC(n),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, n}), v6}, Role: role}, new(tapLike))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// synFrame is a SYN from a port, whose header's data offset byte is offset.
func synFrame(v6 bool, port uint16, offset byte, options ...byte) *vswitch.Frame {
	b := make([]byte, header.TCPMinimumSize, header.TCPMinimumSize+len(options))
	header.TCP(b).Encode(&header.TCPFields{SrcPort: port, DstPort: 80, DataOffset: header.TCPMinimumSize,
		Flags: header.TCPFlagSyn, WindowSize: 1000})
	b[header.TCPDataOffset] = offset
	how := uint8(0)
	if v6 {
		how = 1
	}
	etherType, p := fuzzPacket(how, append(b, options...))
	if v6 {
		p[7] = 64 // hop limit
	} else {
		p[8] = 64 // TTL; nobody looks at the checksum
	}
	return linkFrame(tcpip.LinkAddress(linkMAC(1)), linkMAC(7), etherType, p)
}

// deciding answers each SYN in the way its port asks for.
type deciding struct {
	mirror
	seen sync.Map // by source port
}

func (d *deciding) HandleTCP(r *TCPRequest) {
	d.seen.Store(r.Src.Port(), r.Plain)
	switch r.Src.Port() % 3 {
	case 0:
		r.Refuse()
	case 1:
		r.Drop()
	default:
		r.Unreachable(r.Src.Port()%2 == 0)
	}
}

// TestRepeatedSYNsLeaveNothing sends each SYN from two goroutines at once, so that many meet while they are decided
// about.
func TestRepeatedSYNsLeaveNothing(t *testing.T) {
	g, sw := newNetwork(t)
	port := station(t, sw, 7, false)
	d := &deciding{mirror: mirror{g: g}}
	g.SetHandler(d)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range uint16(20000) {
				port.Receive(synFrame(false, 1000+i, 0x50))
			}
		})
	}
	wg.Wait()
	deadline := time.Now().Add(30 * time.Second)
	for {
		g.syns.mu.Lock()
		left := len(g.syns.byID)
		g.syns.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d SYNs are pending for ever", left)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMalformedTCPIsDropped sends SYNs whose headers say what cannot be from a port without the guard, which checks
// them.
func TestMalformedTCPIsDropped(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", v6), func(t *testing.T) {
			g, sw := newNetwork(t)
			port := station(t, sw, 7, false)
			d := &deciding{mirror: mirror{g: g}}
			g.SetHandler(d)
			for offset := range byte(16) {
				if offset != 5 {
					port.Receive(synFrame(v6, 3000+uint16(offset), offset<<4))
				}
			}
			port.Receive(synFrame(v6, 4000, 0x60, header.TCPOptionMSS, 0, 0, 0))   // an option without a length
			port.Receive(synFrame(v6, 4001, 0x60, header.TCPOptionNOP, 77, 40, 0)) // an option longer than the header
			port.Receive(synFrame(v6, 5000, 0x50))                                 // nothing is wrong with it
			deadline := time.Now().Add(30 * time.Second)
			for {
				if _, ok := d.seen.Load(uint16(5000)); ok {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("a good SYN does not arrive")
				}
				time.Sleep(time.Millisecond)
			}
			d.seen.Range(func(port, plain any) bool {
				if port.(uint16) < 4000 {
					t.Errorf("a SYN with a data offset of %d arrived", port.(uint16)-3000)
				}
				if port.(uint16) != 5000 && plain.(bool) {
					t.Errorf("the SYN from port %d counts as plain", port)
				}
				return true
			})
		})
	}
}

// TestSYNOutOfHops: the gateway is a hop, so that traceroute -T sees it as one.
func TestSYNOutOfHops(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		g, sw := newNetwork(t)
		d := &deciding{mirror: mirror{g: g}}
		g.SetHandler(d)
		dev := &icmpLike{seen: make(chan byte, 10)}
		port, err := sw.Connect(vswitch.PortConfig{
			MAC: linkMAC(7), Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd09::7")},
		}, dev)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []string{"10.9.0.7", "fd09::7"} {
			addr := netip.MustParseAddr(a)
			if err := g.s.AddStaticNeighbor(nic, protoOf(addr), tcpip.AddrFromSlice(addr.AsSlice()),
				tcpip.LinkAddress(linkMAC(7))); err != nil {
				t.Fatal(err)
			}
		}
		f := synFrame(v6, 6000, 0x50)
		at, want := 8, byte(11)
		if v6 {
			at, want = 7, 3
		}
		f.Payload[0][at] = 1
		port.Receive(f)
		port.Receive(synFrame(v6, 6001, 0x50))
		select {
		case got := <-dev.seen:
			if got != want {
				t.Errorf("IPv6 %v: ICMP type %d, want %d", v6, got, want)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("IPv6 %v: a SYN with one hop left is not answered", v6)
		}
		if _, ok := d.seen.Load(uint16(6000)); ok {
			t.Errorf("IPv6 %v: it went on", v6)
		}
	}
}

// icmpLike is a device that tells the types of ICMP messages but those of neighbour discovery, which it answers.
type icmpLike struct{ seen chan byte }

func (d *icmpLike) WriteFrame(f *vswitch.Frame) error {
	p := slices.Concat(f.Payload...)
	at, kind := 20, byte(header.ICMPv4ProtocolNumber)
	if f.EtherType() == vswitch.EtherTypeIPv6 {
		at, kind = 40, byte(header.ICMPv6ProtocolNumber)
	}
	if len(p) > at && (at == 20 && p[9] == kind || at == 40 && p[6] == kind) &&
		p[at] < byte(header.ICMPv6RouterSolicit) {
		select {
		case d.seen <- p[at]:
		default:
		}
	}
	return nil
}
