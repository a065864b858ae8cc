package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tcp   = unix.IPPROTO_TCP
	udp   = unix.IPPROTO_UDP
	icmp  = unix.IPPROTO_ICMP
	icmp6 = unix.IPPROTO_ICMPV6
)

func rules(t testing.TB, texts ...string) []Rule {
	t.Helper()
	var list []Rule
	for _, s := range texts {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// made is a policy with a clock that the test moves.
func made(t testing.TB, mode Mode, texts ...string) (*Policy, *time.Time) {
	t.Helper()
	p, err := New(mode, rules(t, texts...))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	p.start, p.now = now, func() time.Time { return now }
	return p, &now
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		mode  Mode
		rules []string
		proto uint8
		dst   string
		ok    bool
	}{
		{Allow, nil, tcp, "192.0.2.1:80", true},
		{"", nil, udp, "[2001:db8::1]:53", true},
		{Deny, nil, tcp, "192.0.2.1:80", false},
		{Deny, nil, udp, "[2001:db8::1]:53", false},
		{Deny, nil, icmp, "192.0.2.1:0", false},
		{Deny, []string{"192.0.2.0/24"}, tcp, "192.0.2.1:80", true},
		{Deny, []string{"192.0.2.0/24"}, icmp, "192.0.2.1:0", true},
		{Deny, []string{"192.0.2.0/24"}, tcp, "[::ffff:192.0.2.1]:80", true},
		{Deny, []string{"192.0.2.77/24"}, udp, "192.0.2.1:80", true},
		{Deny, []string{"192.0.2.1"}, tcp, "192.0.2.1:80", true},
		{Deny, []string{"192.0.2.1"}, tcp, "192.0.2.2:80", false},
		{Deny, []string{"192.0.2.0/24:443"}, tcp, "192.0.2.1:443", true},
		{Deny, []string{"192.0.2.0/24:443"}, udp, "192.0.2.1:443", true},
		{Deny, []string{"192.0.2.0/24:443"}, tcp, "192.0.2.1:80", false},
		{Deny, []string{"192.0.2.0/24:443"}, icmp, "192.0.2.1:0", false},
		{Deny, []string{"192.0.2.0/24:443/tcp"}, udp, "192.0.2.1:443", false},
		{Deny, []string{"192.0.2.0/24:8000-8100/tcp"}, tcp, "192.0.2.1:8100", true},
		{Deny, []string{"192.0.2.0/24:8000-8100/tcp"}, tcp, "192.0.2.1:8101", false},
		{Deny, []string{"192.0.2.0/24:*/icmp"}, icmp, "192.0.2.1:0", true},
		{Deny, []string{"192.0.2.0/24:*/icmp"}, tcp, "192.0.2.1:80", false},
		{Deny, []string{"[2001:db8::/32]:53/udp"}, udp, "[2001:db8::1]:53", true},
		{Deny, []string{"2001:db8::/32"}, icmp6, "[2001:db8::1]:0", true},
		{Deny, []string{"2001:db8::1"}, tcp, "[2001:db8::1]:1", true},
		{Deny, []string{"0.0.0.0/0"}, tcp, "[2001:db8::1]:1", false},
		// Metadata and link-local: refused, unless named.
		{Allow, nil, tcp, "169.254.169.254:80", false},
		{Allow, nil, tcp, "[::ffff:169.254.169.254]:80", false},
		{Allow, nil, tcp, "[fd00:ec2::254]:80", false},
		{Allow, nil, udp, "[fe80::1]:80", false},
		{Allow, nil, icmp, "169.254.1.1:0", false},
		{Allow, nil, tcp, "[fd00:ec2::253]:80", true},
		{Allow, []string{"0.0.0.0/0", "::/0"}, tcp, "169.254.169.254:80", false},
		{Deny, []string{"0.0.0.0/0", "::/0"}, tcp, "[fd00:ec2::254]:80", false},
		{Allow, []string{"169.254.169.254:80"}, tcp, "169.254.169.254:80", true},
		{Allow, []string{"169.254.169.254:80"}, tcp, "169.254.169.254:81", false},
		{Deny, []string{"169.254.0.0/16"}, tcp, "169.254.169.254:80", true},
	} {
		p, _ := made(t, test.mode, test.rules...)
		if err := p.Decide(test.proto, netip.MustParseAddrPort(test.dst)); (err == nil) != test.ok {
			t.Errorf("%s %v, protocol %d to %s: %v", test.mode, test.rules, test.proto, test.dst, err)
		}
	}
	var none *Policy
	if none.Decide(tcp, netip.MustParseAddrPort("192.0.2.1:80")) != nil ||
		none.Decide(tcp, netip.MustParseAddrPort("169.254.169.254:80")) == nil {
		t.Error("no policy is not the default one")
	}
}

func TestNamesAreFollowedForAsLongAsTheirAnswersAreGood(t *testing.T) {
	p, now := made(t, Deny, "*.debian.org:443", "example.com")
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.3")
	to := func(a netip.Addr, port uint16) bool { return p.Decide(tcp, netip.AddrPortFrom(a, port)) == nil }
	if to(a, 443) {
		t.Error("allowed before it was ever answered")
	}
	p.Pin("DEB.debian.org.", []netip.Addr{a, b}, time.Minute)
	p.Pin("debian.org", []netip.Addr{c}, time.Minute)
	p.Pin("notdebian.org", []netip.Addr{c}, time.Minute)
	p.Pin("deb.debian.org.evil.test", []netip.Addr{c}, time.Minute)
	if !to(a, 443) || !to(b, 443) || to(a, 80) || to(c, 443) {
		t.Errorf("of *.debian.org:443: %v %v %v %v", to(a, 443), to(b, 443), to(a, 80), to(c, 443))
	}
	p.Pin("example.com", []netip.Addr{a}, 2*time.Minute)
	if !to(a, 80) {
		t.Error("an address of two names is not allowed for the second")
	}
	*now = now.Add(time.Minute + grace + time.Second)
	if to(b, 443) || !to(a, 443) {
		t.Error("an answer is kept for another time than its own")
	}
	*now = now.Add(time.Hour)
	if to(a, 443) {
		t.Error("an answer is kept for ever")
	}
}

// TestPoliciesInheritWhatNamesWereAnswered, by the rules that both have.
func TestPoliciesInheritWhatNamesWereAnswered(t *testing.T) {
	old, now := made(t, Deny, "a.example:443", "b.example")
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	*now = now.Add(time.Hour)
	old.Pin("a.example", []netip.Addr{a}, time.Minute)
	old.Pin("b.example", []netip.Addr{b}, time.Minute)
	next, err := New(Deny, rules(t, "c.example", "a.example:443"))
	if err != nil {
		t.Fatal(err)
	}
	next.start, next.now = *now, old.now
	next.Inherit(old)
	for _, test := range []struct {
		dst netip.AddrPort
		ok  bool
	}{
		{netip.AddrPortFrom(a, 443), true},
		{netip.AddrPortFrom(a, 80), false},
		{netip.AddrPortFrom(b, 443), false},
	} {
		if err := next.Decide(tcp, test.dst); (err == nil) != test.ok {
			t.Errorf("%v: %v", test.dst, err)
		}
	}
	*now = now.Add(time.Minute + grace + time.Second)
	if next.Decide(tcp, netip.AddrPortFrom(a, 443)) == nil {
		t.Error("an answer counts longer than it is good")
	}
}

func TestDatagramsGoOnBeyondTheAnswer(t *testing.T) {
	p, now := made(t, Deny, "*.test:443")
	to := netip.MustParseAddrPort("192.0.2.1:443")
	p.Pin("quic.test", []netip.Addr{to.Addr()}, time.Minute)
	for range 20 {
		*now = now.Add(time.Minute)
		if err := p.Decide(udp, to); err != nil {
			t.Fatalf("a datagram of a flow that goes on: %v", err)
		}
	}
	if p.Decide(tcp, to) == nil || p.Decide(udp, netip.AddrPortFrom(to.Addr(), 444)) == nil {
		t.Error("datagrams open more than they are")
	}
	*now = now.Add(flowIdle + time.Second)
	if p.Decide(udp, to) == nil {
		t.Error("a flow goes on for ever")
	}
}

func TestNamesDoNotOpenSpecialAddresses(t *testing.T) {
	p, _ := made(t, Deny, "*")
	for _, s := range []string{"169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200",
		"192.0.0.192", "fe80::1", "127.0.0.1", "::1", "::ffff:169.254.169.254"} {
		a := netip.MustParseAddr(s)
		p.Pin("rebound.test", []netip.Addr{a}, time.Hour)
		if p.Decide(tcp, netip.AddrPortFrom(a, 80)) == nil {
			t.Errorf("a name opened %s", a)
		}
	}
}

func TestWhatIsLearnedIsBounded(t *testing.T) {
	p, now := made(t, Deny, "*")
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxPinned {
		*now = now.Add(time.Millisecond)
		p.Pin("x.test", []netip.Addr{address(i)}, time.Hour)
	}
	if n := len(p.pinned); n > maxPinned || n < maxPinned/2 {
		t.Errorf("%d addresses are kept", n)
	}
	if p.Decide(tcp, netip.AddrPortFrom(address(3*maxPinned-1), 80)) != nil {
		t.Error("the latest answer is not among them")
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	p, _ := made(t, Deny, "10.0.0.0/8", "*.debian.org:443", "192.0.2.0/24:80/tcp")
	told := netip.MustParseAddrPort("198.51.100.1:443")
	p.Pin("deb.debian.org", []netip.Addr{told.Addr()}, time.Hour)
	for _, dst := range []netip.AddrPort{told, netip.MustParseAddrPort("10.1.1.1:1"),
		netip.MustParseAddrPort("203.0.113.1:1"), netip.MustParseAddrPort("169.254.1.1:1")} {
		if n := testing.AllocsPerRun(100, func() { _ = p.Decide(tcp, dst) }); n != 0 {
			t.Errorf("%s: %v allocations", dst, n)
		}
	}
	for _, name := range []string{"deb.debian.org", "other.test"} {
		if n := testing.AllocsPerRun(100, func() { _ = p.AllowQuery(name, netip.Addr{}) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestNamesThatMayBeAskedFor(t *testing.T) {
	for _, test := range []struct {
		mode  Mode
		rules []string
		name  string
		addr  string // of a reverse lookup
		ok    bool
	}{
		{Allow, nil, "x.test", "", true},
		{"", nil, "x.test", "", true},
		{Deny, nil, "x.test", "", false},
		{Deny, nil, "", "", false}, // the root
		{Deny, []string{"x.test"}, "x.test", "", true},
		{Deny, []string{"X.test.:443/tcp"}, "x.test", "", true},
		{Deny, []string{"x.test"}, "y.x.test", "", false},
		{Deny, []string{"x.test"}, "test", "", false},
		{Deny, []string{"*.x.test:443"}, "a.b.x.test", "", true},
		{Deny, []string{"*.x.test"}, "x.test", "", false},
		{Deny, []string{"*.x.test"}, "ax.test", "", false},
		{Deny, []string{"*.x.test"}, `a\.x.test`, "", false}, // the label "a.x" below test
		{Deny, []string{"*.x.test"}, `a\\.x.test`, "", false},
		{Deny, []string{"*"}, `a\.x.test`, "", true},
		{Deny, []string{"*"}, "x.test", "", true},
		{Deny, []string{"0.0.0.0/0", "::/0"}, "x.test", "", false},
		{Deny, []string{"dns"}, "x.test", "", true},
		{Deny, []string{"DNS"}, "", "", true},
		{Deny, []string{"dns."}, "x.test", "", false}, // a host
		{Deny, []string{"dns."}, "dns", "", true},
		{Deny, []string{"dns:*"}, "x.test", "", false},
		{Deny, []string{"dns:*"}, "dns", "", true},
		// Names of addresses.
		{Deny, nil, "1.2.0.192.in-addr.arpa", "192.0.2.1", false},
		{Deny, []string{"192.0.2.0/24:443"}, "1.2.0.192.in-addr.arpa", "192.0.2.1", true},
		{Deny, []string{"192.0.2.0/24"}, "1.3.0.192.in-addr.arpa", "192.0.3.1", false},
		{Deny, []string{"2001:db8::/32"}, "x.ip6.arpa", "2001:db8::1", true},
		{Deny, []string{"192.0.2.0/24"}, "1.2.0.192.in-addr.arpa", "", false}, // asked for something else
		{Deny, []string{"*.x.test"}, "1.2.0.192.in-addr.arpa", "192.0.2.1", false},
		{Deny, []string{"dns"}, "1.2.0.192.in-addr.arpa", "192.0.2.1", true},
	} {
		p, _ := made(t, test.mode, test.rules...)
		var addr netip.Addr
		if test.addr != "" {
			addr = netip.MustParseAddr(test.addr)
		}
		if err := p.AllowQuery(test.name, addr); (err == nil) != test.ok {
			t.Errorf("%s %v, %q %s: %v", test.mode, test.rules, test.name, test.addr, err)
		}
	}
	var none *Policy
	if err := none.AllowQuery("x.test", netip.Addr{}); err != nil {
		t.Errorf("no policy: %v", err)
	}
}

func TestTheRuleDNSOpensNoDestination(t *testing.T) {
	p, _ := made(t, Deny, "dns")
	a := netip.MustParseAddr("192.0.2.1")
	for _, name := range []string{"dns", "x.test", "", "."} {
		p.Pin(name, []netip.Addr{a}, time.Hour)
	}
	for _, port := range []uint16{0, 53, 443} {
		for _, proto := range []uint8{tcp, udp, icmp} {
			if p.Decide(proto, netip.AddrPortFrom(a, port)) == nil {
				t.Errorf("protocol %d, port %d", proto, port)
			}
		}
	}
	if len(p.pinned) != 0 {
		t.Errorf("%d addresses are kept for nothing", len(p.pinned))
	}
}

func TestRulesThatAreNone(t *testing.T) {
	for _, s := range []string{
		"", ":80", "10.0.0.0/33", "10.0.0.300", "1.2.3", "a b", "x.test:", "x.test:0", "x.test:65536", "x.test:90-80",
		"x.test:http", "x.test:80/sctp",
		"x.test:80/icmp", "*x.test", "x.*.test", "**", "[::1", "[::1]80", "[::1]:", "fe80::1%eth0", "-..", "x..test",
		"*.", "dns/udp", "dns:", "*dns",
	} {
		if r, err := ParseRule(s); err == nil {
			t.Errorf("%q is a rule: %+v", s, r)
		}
	}
	if _, err := New(Deny, make([]Rule, maxRules+1)); err == nil {
		t.Error("more rules than there is room for")
	}
	if _, err := ParseMode("maybe"); err == nil {
		t.Error("a mode that is none")
	}
}

// TestAgreesWithTheObvious compares with a model that keeps every answer and looks at each.
func TestAgreesWithTheObvious(t *testing.T) {
	type answer struct {
		name  string
		addr  netip.Addr
		until time.Time
	}
	texts := []string{"*.a.test:443", "b.test", "*:53/udp", "10.0.0.0/30", "10.0.1.0/24:80-90"}
	names := []string{"x.a.test", "a.test", "b.test", "c.test", "y.x.a.test"}
	p, now := made(t, Deny, texts...)
	model := rules(t, texts...)
	var told []answer
	flows := map[netip.Addr]time.Time{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 6000 {
		*now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
		a := netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(3)), byte(random.IntN(8))})
		if random.IntN(3) == 0 {
			name, ttl := names[random.IntN(len(names))], time.Duration(random.IntN(100))*time.Second
			p.Pin(name, []netip.Addr{a}, ttl)
			told = append(told, answer{name, a, now.Add(ttl + grace)})
			continue
		}
		proto, port := []uint8{tcp, udp, icmp}[random.IntN(3)], []uint16{53, 80, 443}[random.IntN(3)]
		want := false
		for _, r := range model {
			if !r.carries(proto, port) {
				continue
			}
			want = want || r.prefix.IsValid() && r.prefix.Contains(a)
		}
		byName, going := false, proto != tcp && !flows[a].Before(*now)
		for _, r := range model {
			for _, x := range told {
				byName = byName || r.carries(proto, port) && x.addr == a && r.names(x.name) &&
					(going || !x.until.Before(*now))
			}
		}
		if byName && !want && proto != tcp {
			flows[a] = now.Add(flowIdle)
		}
		want = want || byName
		if got := p.Decide(proto, netip.AddrPortFrom(a, port)) == nil; got != want {
			t.Fatalf("protocol %d to %s:%d: %v, wanted %v", proto, a, port, got, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"*.debian.org:443", "[2001:db8::/32]:53/udp", "10.0.0.0/8:*/icmp", "x.test:1-2/tcp",
		"dns", "dns.", "dns:53/udp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%q is %+v, and read again %+v, %v", s, r, again, err)
		}
		kinds := 0
		for _, is := range []bool{r.prefix.IsValid(), r.name != "" || r.wildcard, r.dns} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%q is not one of an address, a name and dns: %+v", s, r)
		}
		p, err := New(Deny, []Rule{r})
		if err != nil {
			t.Fatal(err)
		}
		p.Pin("x.test", []netip.Addr{netip.MustParseAddr("192.0.2.1")}, time.Second)
		_ = p.Decide(tcp, netip.MustParseAddrPort("192.0.2.1:80"))
		if p.AllowQuery("x.test", netip.Addr{}) == nil && !r.dns && !r.names("x.test") {
			t.Errorf("%q lets another name be asked for", s)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p, _ := made(b, Deny, "*.debian.org:443")
	for i := range 1000 {
		p.Pin(fmt.Sprintf("h%d.debian.org", i), []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})},
			time.Hour)
	}
	dst := netip.MustParseAddrPort("10.0.1.1:443")
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Decide(tcp, dst)
	}
}
