package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/network"
)

// single is one published port, the simple way to look at ranges.
type single struct {
	host           netip.Addr
	hostPort, port uint16
	proto          network.Protocol
}

// singles takes bindings apart.
func singles(list []network.PortBinding) (all []single) {
	for _, b := range list {
		for i := uint16(0); i <= max(b.Port, b.End)-b.Port; i++ {
			s := single{b.HostIP, b.HostPort, b.Port + i, b.Proto}
			if b.HostPort != 0 && b.End > b.Port {
				s.hostPort += i
			}
			all = append(all, s)
		}
	}
	return all
}

// TestSubtractIsDifference compares it with the difference of sets of single ports, for random bindings.
func TestSubtractIsDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	hosts := []netip.Addr{{}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	draw := func(n int) (list []network.PortBinding) {
		for range r.IntN(n) {
			b := network.PortBinding{
				HostIP: hosts[r.IntN(3)],
				Port:   uint16(80 + r.IntN(6)),
				Proto:  []network.Protocol{"tcp", "udp"}[r.IntN(2)],
			}
			b.End = b.Port + uint16(r.IntN(4))
			if r.IntN(3) > 0 {
				b.HostPort = 8000 + b.Port
				b.HostEnd = b.HostPort + b.End - b.Port
			}
			list = append(list, b)
		}
		return list
	}
	for round := range 3000 {
		have, drop := draw(4), draw(3)
		var want []single
		for _, s := range singles(have) {
			gone := slices.ContainsFunc(singles(drop), func(x single) bool {
				return x.proto == s.proto && x.port == s.port && (!x.host.IsValid() || x.host == s.host)
			})
			if !gone {
				want = append(want, s)
			}
		}
		if got := singles(subtract(have, drop)); !slices.Equal(got, want) {
			t.Fatalf("round %d: %v less %v\nis   %v\nwant %v", round, have, drop, got, want)
		}
	}
}

func TestSubtractKeepsWhatIsWhole(t *testing.T) {
	have := []network.PortBinding{{HostPort: 8000, HostEnd: 8010, Port: 80, End: 90, Proto: "tcp"}}
	if got := subtract(have, []network.PortBinding{{Port: 80, End: 90, Proto: "udp"}}); !slices.Equal(got, have) {
		t.Errorf("%v", got)
	}
	if got := subtract(have, have); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"9": syscall.SIGKILL, "KILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM, "term": syscall.SIGTERM,
		"sigusr1": syscall.SIGUSR1,
		"0":       0, "65": 0, "-1": 0, "": 0, "SIGNOTHING": 0, "9 ": 0,
	} {
		got, err := parseSignal(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestEventsAreBoundedAndInOrder adds more events than are kept, and reads them from all sides.
func TestEventsAreBoundedAndInOrder(t *testing.T) {
	l := newEventLog()
	_, next, wake := l.from(^uint64(0))
	for i := range 3 * keptEvents {
		l.add("container", fmt.Sprint(i), "id", nil)
	}
	select {
	case <-wake:
	default:
		t.Error("who waits is not woken")
	}
	list, after, _ := l.from(next)
	if len(list) != keptEvents || list[0].Action != fmt.Sprint(2*keptEvents) || after != 3*keptEvents {
		t.Errorf("%d events from %s on, and the next is %d", len(list), list[0].Action, after)
	}
	if list, again, _ := l.from(after); len(list) != 0 || again != after {
		t.Errorf("%d events after the last", len(list))
	}
	if list, _, _ := l.from(after - 1); len(list) != 1 || list[0].Action != fmt.Sprint(3*keptEvents-1) {
		t.Errorf("the last one is %v", list)
	}
}

// TestPortsOfAllAddressesGoOneByOne: who sees where ports are bound names an address to remove one.
func TestPortsOfAllAddressesGoOneByOne(t *testing.T) {
	have := []network.PortBinding{
		{HostPort: 8080, HostEnd: 8080, Port: 80, End: 80, Proto: "tcp"},
		{HostPort: 8081, HostEnd: 8081, Port: 81, End: 81, Proto: "tcp"},
	}
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	var bound []binding
	for _, h := range have {
		for _, a := range []netip.Addr{v4, v6} {
			bound = append(bound, binding{bound: publish.Bound{Port: h.Port, Proto: h.Proto,
				Host: netip.AddrPortFrom(a, h.HostPort)}})
		}
	}
	at := func(a netip.Addr) network.PortBinding {
		b := have[0]
		b.HostIP = a
		return b
	}
	for name, test := range map[string]struct{ drop, want []network.PortBinding }{
		"one":     {[]network.PortBinding{at(v4)}, []network.PortBinding{at(v6), have[1]}},
		"both":    {[]network.PortBinding{at(v4), at(v6)}, have[1:]},
		"all":     {[]network.PortBinding{have[0]}, have[1:]},
		"another": {[]network.PortBinding{at(netip.MustParseAddr("192.0.2.1"))}, have},
	} {
		if got := subtract(addressed(have, test.drop, bound), test.drop); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
