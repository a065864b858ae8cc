package policy

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestExplainSaysWhatDecideDoes compares the two for many destinations, and takes each remedy at its word.
func TestExplainSaysWhatDecideDoes(t *testing.T) {
	texts := []string{"10.0.0.0/8", "192.0.2.0/24:443", "*.debian.org:443", "x.test", "2001:db8::/32:53/udp",
		"169.254.169.254"}
	addrs := []string{"10.1.2.3", "192.0.2.9", "198.51.100.1", "2001:db8::1", "169.254.169.254", "169.254.1.1",
		"fe80::1"}
	ports := []uint16{0, 53, 80, 443}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var some []string
		for _, s := range texts {
			if r.IntN(2) == 0 && !strings.HasPrefix(s, "2001") {
				some = append(some, s)
			}
		}
		mode := Mode(Modes[r.IntN(len(Modes))])
		p, _ := made(t, mode, some...)
		dst := netip.AddrPortFrom(netip.MustParseAddr(addrs[r.IntN(len(addrs))]), ports[r.IntN(len(ports))])
		proto := []uint8{tcp, udp}[r.IntN(2)]
		name := []string{"", "deb.debian.org", "x.test", "other.test"}[r.IntN(4)]
		v := p.Explain(proto, dst, name)
		if name != "" {
			p.Pin(name, []netip.Addr{dst.Addr()}, time.Minute)
		}
		if err := p.Decide(proto, dst); (err == nil) != (v.Refusal == nil) || err != nil && err != error(v.Refusal) {
			t.Fatalf("%s %v, %d to %s as %q: explained as %q, decided as %v", mode, some, proto, dst, name, v, err)
		}
		remedy := v.Remedy(dst, name)
		if (remedy == "") != (v.Refusal == nil) {
			t.Fatalf("%s: the remedy is %q", v, remedy)
		}
		if flag, ok := strings.CutPrefix(remedy, "--allow-egress "); ok {
			p, _ := made(t, mode, append(some, flag)...)
			if v := p.Explain(proto, dst, name); v.Refusal != nil {
				t.Fatalf("%s %v to %s as %q: %s does not help: %s", mode, some, dst, name, remedy, v)
			}
		}
	}
}

func TestExplainKeepsNothingOpen(t *testing.T) {
	p, now := made(t, Deny, "*.test:443")
	to := netip.MustParseAddrPort("192.0.2.1:443")
	p.Pin("quic.test", []netip.Addr{to.Addr()}, time.Minute)
	if v := p.Explain(udp, to, ""); v.Refusal != nil || !strings.Contains(v.String(), "*.test:443") {
		t.Errorf("an address that is pinned: %s", v)
	}
	*now = now.Add(time.Minute + grace + time.Second)
	if v := p.Explain(udp, to, ""); v.Refusal == nil {
		t.Errorf("an explanation has kept the way open: %s", v)
	}
	if v := (*Policy)(nil).Explain(tcp, to, ""); v.Refusal != nil {
		t.Errorf("no policy: %s", v)
	}
}
