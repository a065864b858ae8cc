package forwarder

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/publish"
)

// fakeInside is a gateway with addresses only.
type fakeInside struct {
	Gateway
	networks []netip.Prefix
}

func (i fakeInside) Owns(a netip.Addr) bool {
	return slices.ContainsFunc(i.networks, func(n netip.Prefix) bool { return n.Addr() == a })
}

func (i fakeInside) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(i.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// refuses makes a policy that refuses all destinations but the given ones.
func refuses(but ...string) func(netip.Addr, uint8, netip.AddrPort) error {
	return func(_ netip.Addr, _ uint8, dst netip.AddrPort) error {
		if slices.Contains(but, dst.String()) {
			return nil
		}
		return errors.New("refused")
	}
}

func TestWhereDestinationsLead(t *testing.T) {
	shared := NewShared(Limits{}, Limits{})
	defer shared.Close()
	host4, host6 := shared.host.Global(false), shared.host.Global(true)
	publisher, err := New(Config{Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	everywhere := publish.Binding{HostIP: netip.IPv4Unspecified(), Port: 80, Proto: publish.TCP}
	bound, err := publisher.Publish(t.Context(), netip.MustParseAddr("172.31.0.2"), netip.Addr{},
		[]publish.Binding{everywhere})
	if err != nil {
		t.Fatal(err)
	}
	port := bound[0].Host.Port() // which stands for 8080 below
	inside := fakeInside{networks: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24"),
		netip.MustParsePrefix("fd30::1/64")}}
	shared.SetNetworks(func() []netip.Prefix {
		return append([]netip.Prefix{netip.MustParsePrefix("172.31.0.1/24"), netip.MustParsePrefix("fd31::1/64")},
			inside.networks...)
	})
	// The host's own address, with a port; where the machine has none of the family, there is no way.
	own := func(a netip.Addr, port uint16) string {
		if !a.IsValid() {
			return ErrUnreachable.Error()
		}
		return netip.AddrPortFrom(a, port).String()
	}
	const tcp, udp, icmp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP
	deny := refuses()
	for _, test := range []struct {
		what  string
		proto uint8
		dst   string
		allow func(netip.Addr, uint8, netip.AddrPort) error
		loop  bool // --host-loopback
		want  string
	}{
		{"a stranger", tcp, "192.0.2.7:80", nil, false, "192.0.2.7:80"},
		{"a stranger, refused", tcp, "192.0.2.7:80", deny, false, errProhibited.Error()},
		{"the gateway is the host", tcp, "172.30.0.1:22", nil, false, own(host4, 22)},
		{"the gateway is the host, by IPv6", udp, "[fd30::1]:53", nil, false, own(host6, 53)},
		{"the host's loopback, where it is allowed", tcp, "172.30.0.1:22", nil, true, "127.0.0.1:22"},
		{"the host's loopback has no other rule", tcp, "172.30.0.1:22", deny, true, "127.0.0.1:22"},
		{"a published port", tcp, "172.30.0.1:8080", nil, false, "127.0.0.1:8080"},
		{"a published port of another protocol", udp, "172.30.0.1:8080", nil, false, own(host4, port)},
		{"a published port, refused", tcp, "172.30.0.1:8080", deny, false, errProhibited.Error()},
		{"a published port with a rule for the gateway", tcp, "172.30.0.1:8080",
			refuses(fmt.Sprint("172.30.0.1:", port)), false, "127.0.0.1:8080"},
		{"a rule for the gateway's other port", tcp, "172.30.0.1:8080", refuses("172.30.0.1:80"), false,
			errProhibited.Error()},
		{"the host with a rule for its own address", tcp, "172.30.0.1:22", refuses(own(host4, 22)), false,
			own(host4, 22)},
		{"another network's gateway is the host too", tcp, "172.31.0.1:22", nil, false, own(host4, 22)},
		{"another network's gateway, refused", tcp, "172.31.0.1:22", deny, false, errProhibited.Error()},
		{"another network's gateway does not answer pings", icmp, "172.31.0.1:0", nil, false, ErrOtherNetwork.Error()},
		{"another network's container", tcp, "172.31.0.7:80", nil, false, ErrOtherNetwork.Error()},
		{"another network's container, by IPv6", udp, "[fd31::7]:80", nil, false, ErrOtherNetwork.Error()},
		{"a neighbour", tcp, "172.30.0.7:80", nil, false, ErrUnreachable.Error()},
		{"loopback", tcp, "127.0.0.1:80", nil, true, ErrUnreachable.Error()},
		{"loopback in IPv6's clothes", tcp, "[::ffff:127.0.0.1]:80", nil, false, ErrUnreachable.Error()},
		{"nowhere in IPv6's clothes", tcp, "[::ffff:0.0.0.0]:80", nil, false, ErrUnreachable.Error()},
		{"a stranger in IPv6's clothes", tcp, "[::ffff:192.0.2.7]:80", nil, false, ErrUnreachable.Error()},
		{"nowhere", tcp, "0.0.0.0:80", nil, false, ErrUnreachable.Error()},
		{"a group", udp, "224.0.0.1:80", nil, false, ErrUnreachable.Error()},
	} {
		test.dst, test.want = strings.Replace(test.dst, "8080", fmt.Sprint(port), 1),
			strings.Replace(test.want, "8080", fmt.Sprint(port), 1)
		t.Run(test.what, func(t *testing.T) {
			f, err := New(Config{
				Shared: shared, Allow: test.allow, HostLoopback: func(netip.Addr) bool { return test.loop },
				Inside: inside,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			target, err := f.hostTarget(netip.MustParseAddr("172.30.0.2"), test.proto,
				netip.MustParseAddrPort(test.dst))
			got := target.String()
			switch {
			case errors.Is(err, errProhibited):
				got = errProhibited.Error()
			case err != nil:
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%s leads to %s, want %s", test.dst, got, test.want)
			}
		})
	}
}

// TestOwnNetworks holds the search against a look at each subnet, with random networks that come and go.
func TestOwnNetworks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	network := func() netip.Prefix { // none overlaps another
		if r.IntN(2) == 0 {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(30)), 0, 1}), 16+r.IntN(3)*4)
		}
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: byte(r.IntN(30)), 15: 1}), 64)
	}
	var o ownNetworks
	var live []netip.Prefix
	for step := range 2000 {
		if n := network(); r.IntN(2) == 0 && !slices.ContainsFunc(live, n.Overlaps) {
			live = append(live, n)
		} else if len(live) > 0 {
			i := r.IntN(len(live))
			live = slices.Delete(live, i, i+1)
		}
		o.set(live)
		for range 20 {
			n := network()
			a := n.Addr()
			if a.Is4() {
				a = netip.AddrFrom4([4]byte{10, a.As4()[1], byte(r.IntN(256)), 7})
			}
			want := slices.ContainsFunc(live, func(n netip.Prefix) bool { return n.Contains(a) })
			if o.contain(a) != want {
				t.Fatalf("step %d: %s in %v: want %v", step, a, live, want)
			}
			if want := slices.ContainsFunc(live, func(l netip.Prefix) bool {
				return l.Addr() ==
					n.Addr()
			}); o.isGateway(n.Addr()) != want {
				t.Fatalf("step %d: %s is a gateway of %v: want %v", step, n.Addr(), live, want)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { o.contain(netip.IPv4Unspecified()) }); n > 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func TestTranslatedDestinations(t *testing.T) {
	shared := NewShared(Limits{}, Limits{})
	defer shared.Close()
	table := map[netip.Addr]netip.Addr{
		netip.MustParseAddr("169.254.1.2"): netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("172.30.0.1"):  netip.MustParseAddr("127.0.0.1"),
	}
	f := &Forwarder{cfg: Config{
		Inside:       fakeInside{networks: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}},
		Shared:       shared,
		HostLoopback: func(netip.Addr) bool { return false },
		Translate:    func(a netip.Addr) netip.Addr { return table[a] },
	}}
	src := netip.MustParseAddr("172.30.0.2")
	for dst, want := range map[string]string{
		"169.254.1.2:80": "192.0.2.2:80",
		"172.30.0.1:22":  "127.0.0.1:22", // before the gateway's own meaning
		"192.0.2.9:80":   "192.0.2.9:80",
	} {
		if got, err := f.hostTarget(src, unix.IPPROTO_TCP, netip.MustParseAddrPort(dst)); err != nil || got.String() !=
			want {
			t.Errorf("%s leads to %v (%v), want %s", dst, got, err, want)
		}
	}
	f.cfg.Internal = true
	if got, err := f.hostTarget(src, unix.IPPROTO_TCP, netip.MustParseAddrPort("169.254.1.2:80")); err == nil {
		t.Errorf("an internal network leads to %v", got)
	}
}
