package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func neighbours(t testing.TB, text string) *Neighbours {
	t.Helper()
	r, err := ParseNeighbourRules(text)
	if err != nil {
		t.Fatal(err)
	}
	n := NewNeighbours(r)
	n.SetMembers(map[netip.Addr][]string{
		netip.MustParseAddr("10.0.0.2"):    {"app=frontend", "tier=1", "name=web"},
		netip.MustParseAddr("10.0.0.3"):    {"app=backend", "name=db", "network=lab"},
		netip.MustParseAddr("10.0.0.4"):    {"app=other"},
		netip.MustParseAddr("2001:db8::2"): {"app=frontend", "tier=1"},
		netip.MustParseAddr("2001:db8::3"): {"app=backend"},
	})
	return n
}

func TestWhoReachesWhom(t *testing.T) {
	for _, test := range []struct {
		rules    string
		proto    uint8
		src, dst string
		ok       bool
	}{
		{"", tcp, "10.0.0.2:1", "10.0.0.3:80", true},
		{"default deny", tcp, "10.0.0.2:1", "10.0.0.3:80", false},
		{"default deny; allow app=frontend -> app=backend", tcp, "10.0.0.2:1", "10.0.0.3:80", true},
		{"default deny; allow app=frontend -> app=backend", tcp, "10.0.0.3:1", "10.0.0.2:80", false},
		{"default deny; allow app=frontend -> app=backend", tcp, "10.0.0.4:1", "10.0.0.3:80", false},
		{"default deny; allow app=frontend -> app=backend", icmp, "10.0.0.2:7", "10.0.0.3:7", true},
		{"default deny\nallow app=frontend -> app=backend", icmp6, "[2001:db8::2]:7", "[2001:db8::3]:7", true},
		{"default deny; allow app=frontend,tier=1 -> *", udp, "10.0.0.2:1", "10.0.0.4:53", true},
		{"default deny; allow app=frontend,tier=2 -> *", udp, "10.0.0.2:1", "10.0.0.4:53", false},
		{"default deny; allow name=web -> name=db:5432", tcp, "10.0.0.2:1", "10.0.0.3:5432", true},
		{"default deny; allow name=web -> name=db:5432", tcp, "10.0.0.2:1", "10.0.0.3:5433", false},
		{"default deny; allow name=web -> name=db:5432", icmp, "10.0.0.2:7", "10.0.0.3:7", false},
		{"default deny; allow * -> name=db:80-90/udp", udp, "10.0.0.4:1", "10.0.0.3:85", true},
		{"default deny; allow * -> name=db:80-90/udp", tcp, "10.0.0.4:1", "10.0.0.3:85", false},
		{"default deny; allow network=lab -> */icmp", icmp, "10.0.0.3:7", "10.0.0.2:7", true},
		{"default deny; allow network=lab -> */icmp", tcp, "10.0.0.3:7", "10.0.0.2:7", false},
		{"deny app=other -> *", tcp, "10.0.0.4:1", "10.0.0.3:80", false},
		{"deny app=other -> *", tcp, "10.0.0.2:1", "10.0.0.3:80", true},
		{"allow app=other -> name=db:80; deny app=other -> *", tcp, "10.0.0.4:1", "10.0.0.3:80", true},
		{"allow app=other -> name=db:80; deny app=other -> *", tcp, "10.0.0.4:1", "10.0.0.3:81", false},
		{"default deny; allow * -> *", tcp, "10.0.0.99:1", "10.0.0.3:81", true}, // somebody unknown
		{"default deny; allow app=frontend -> *", tcp, "10.0.0.99:1", "10.0.0.3:81", false},
	} {
		n := neighbours(t, test.rules)
		p := Packet{Src: netip.MustParseAddrPort(test.src), Dst: netip.MustParseAddrPort(test.dst), Proto: test.proto,
			Opens: true}
		if err := n.Decide(&p); (err == nil) != test.ok {
			t.Errorf("%q, protocol %d, %s to %s: %v", test.rules, test.proto, test.src, test.dst, err)
		}
	}
}

func TestAnswersPassAndNothingElseDoes(t *testing.T) {
	n := neighbours(t, "default deny; allow app=frontend -> app=backend:53; allow app=frontend -> app=backend/icmp")
	now := time.Unix(1e9, 0)
	n.now = func() time.Time { return now }
	web, db := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.0.0.3:53")
	passes := func(want bool, proto uint8, src, dst netip.AddrPort, opens bool) {
		t.Helper()
		if err := n.Decide(&Packet{Src: src, Dst: dst, Proto: proto, Opens: opens}); (err == nil) != want {
			t.Errorf("protocol %d, %s to %s, opens %v: %v", proto, src, dst, opens, err)
		}
	}
	passes(false, tcp, db, web, true)
	passes(true, tcp, db, web, false)
	passes(false, udp, db, web, true) // an answer to nothing, from the allowed port
	passes(true, udp, web, db, true)
	passes(true, udp, db, web, true)
	passes(false, udp, db, netip.AddrPortFrom(web.Addr(), 4001), true)
	ask, answer := netip.AddrPortFrom(web.Addr(), 9), netip.AddrPortFrom(db.Addr(), 9)
	passes(false, icmp, answer, ask, false)
	passes(true, icmp, ask, answer, true)
	passes(true, icmp, answer, ask, false)
	passes(false, icmp, answer, ask, true)
	now = now.Add(flowFor + time.Second)
	passes(false, udp, db, web, true)
}

// TestAFloodOfDatagramsLeavesOthersTheirAnswers: what is remembered is bounded, and who sends most loses most.
func TestAFloodOfDatagramsLeavesOthersTheirAnswers(t *testing.T) {
	var f flows
	now := time.Now()
	server := netip.MustParseAddrPort("10.0.0.3:53")
	from := func(last byte, port int) flowID {
		return flowID{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), uint16(port)), server, udp}
	}
	for port := range 100 {
		f.note(from(4, port), now)
	}
	for port := range 3 * maxFlows {
		f.note(from(2, port), now)
		if !f.noted(from(2, port), now) {
			t.Fatalf("the flow from port %d is forgotten at once", port)
		}
	}
	kept := 0
	for _, list := range f.of {
		kept += len(list)
	}
	if kept != f.total || kept > maxFlows {
		t.Errorf("%d flows are kept, and %d are counted", kept, f.total)
	}
	for port := range 100 {
		if !f.noted(from(4, port), now) {
			t.Fatalf("the flow from port %d of another container is forgotten", port)
		}
	}
	now = now.Add(flowFor + time.Second)
	f.makeRoom(now)
	if f.total != 0 || len(f.of) != 0 {
		t.Errorf("%d flows of %d containers stay for ever", f.total, len(f.of))
	}
}

func TestTermsAreThoseThatRulesAskFor(t *testing.T) {
	r, err := ParseNeighbourRules("default deny\n# the web\nallow  app=web -> name=db:1")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(r.Terms([]string{"x=y", "name=db", "app=web", "app=web", "name=other"}))
	if got != "[app=web name=db]" {
		t.Error(got)
	}
	if r.String() != "default deny; allow app=web -> name=db:1" {
		t.Error(r)
	}
}

func TestNeighbourRulesThatAreNone(t *testing.T) {
	for _, s := range []string{
		"allow name= -> *", "allow * -> app=a,network=",
		"default maybe", "permit * -> *", "allow *", "allow * *", "allow a -> b", "allow * -> b=c:0",
		"allow * -> b=c:9-8", "allow * -> */sctp", "allow * -> *:1/icmp", "allow =x -> *", "allow * -> *:x",
		"allow a=\x1b[2J -> *", "allow a=\xff -> *", "allow a=" + strings.Repeat("b", maxTerm-1) + " -> *",
		strings.Repeat("allow * -> *;", maxNeighbourRules+1), "allow a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b,a=b -> *"} {
		if r, err := ParseNeighbourRules(s); err == nil {
			t.Errorf("%q is read as %q", s, r)
		}
	}
}

func FuzzParseNeighbourRules(f *testing.F) {
	f.Add("default deny; allow app=web -> name=db:1-2/tcp")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseNeighbourRules(s)
		if err != nil {
			return
		}
		if again, err := ParseNeighbourRules(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q is %q, and read again %q, %v", s, r, again, err)
		}
	})
}

func TestDecidingAboutNeighboursAllocatesNothing(t *testing.T) {
	n := neighbours(t, "default deny; allow app=frontend -> app=backend:53")
	p := Packet{Src: netip.MustParseAddrPort("10.0.0.2:4000"), Dst: netip.MustParseAddrPort("10.0.0.3:53"), Proto: udp,
		Opens: true}
	_ = n.Decide(&p)
	for _, proto := range []uint8{udp, tcp, icmp} {
		p.Proto = proto
		if a := testing.AllocsPerRun(100, func() { _ = n.Decide(&p) }); a != 0 {
			t.Errorf("protocol %d: %v allocations", proto, a)
		}
	}
}

// TestChangesOfMembersAreTheirSum changes random members, and compares with rules that were told all at once.
func TestChangesOfMembersAreTheirSum(t *testing.T) {
	rules, err := ParseNeighbourRules("default deny; allow app=a -> app=b; allow app=b -> *:80/tcp; deny name=x -> *")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 9))
	n := NewNeighbours(rules)
	all := map[netip.Addr][]string{}
	for round := range 300 {
		now, gone := map[netip.Addr][]string{}, []netip.Addr(nil)
		for range r.IntN(4) {
			a := netip.AddrFrom4([4]byte{10, 1, byte(r.IntN(3)), byte(r.IntN(20))})
			if r.IntN(3) == 0 {
				gone = append(gone, a)
			} else {
				now[a] = []string{[]string{"app=a", "app=b", "name=x"}[r.IntN(3)]}
			}
		}
		before := *n.who.Load()
		was := map[netip.Addr]identity{}
		for _, p := range before {
			maps.Copy(was, p)
		}
		n.ChangeMembers(now, gone)
		for _, a := range gone {
			delete(all, a)
		}
		maps.Copy(all, now)
		want := NewNeighbours(rules)
		want.SetMembers(all)
		got, told := map[netip.Addr]identity{}, map[netip.Addr]identity{}
		for i := range len(members{}) {
			maps.Copy(got, n.who.Load()[i])
			maps.Copy(told, want.who.Load()[i])
		}
		if !maps.Equal(got, told) {
			t.Fatalf("round %d: %v, want %v", round, got, told)
		}
		still := map[netip.Addr]identity{}
		for _, p := range before {
			maps.Copy(still, p)
		}
		if !maps.Equal(was, still) {
			t.Fatalf("round %d: what a packet may be looked up in was changed", round)
		}
	}
}
