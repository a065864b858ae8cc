package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/policy"
)

// TestFlagsAllowWhatWasRefused has a policy refuse something, and then decide with the flag that is said to allow it.
func TestFlagsAllowWhatWasRefused(t *testing.T) {
	for _, test := range []struct {
		proto     uint8
		dst, name string
		want      string
	}{
		{unix.IPPROTO_TCP, "192.0.2.7:443", "", "--allow-egress 192.0.2.7:443/tcp"},
		{unix.IPPROTO_TCP, "192.0.2.7:443", "www.example.com", "--allow-egress www.example.com:443/tcp"},
		{unix.IPPROTO_UDP, "[2001:db8::7]:53", "", "--allow-egress '[2001:db8::7]:53/udp'"},
		{unix.IPPROTO_ICMP, "192.0.2.7:0", "", "--allow-egress '192.0.2.7:*/icmp'"},
		{unix.IPPROTO_ICMPV6, "[2001:db8::7]:0", "", "--allow-egress '[2001:db8::7]:*/icmp'"},
		{unix.IPPROTO_TCP, "169.254.169.254:80", "metadata.example.com", "--allow-egress 169.254.169.254:80/tcp"},
	} {
		dst := netip.MustParseAddrPort(test.dst)
		strict, err := policy.New("deny", nil)
		if err != nil {
			t.Fatal(err)
		}
		why := strict.Decide(test.proto, dst)
		if why == nil {
			t.Fatalf("%s is not refused", test.dst)
		}
		flag := allowingFlag(engine.Refusal{Proto: test.proto, Destination: dst, Why: why}, test.name)
		if flag != test.want {
			t.Errorf("%s %s: %s, want %s", test.dst, test.name, flag, test.want)
		}
		rule, err := policy.ParseRule(strings.Trim(strings.TrimPrefix(flag, "--allow-egress "), "'"))
		if err != nil {
			t.Errorf("%s: %v", flag, err)
			continue
		}
		p, err := policy.New("deny", []policy.Rule{rule})
		if err != nil {
			t.Fatal(err)
		}
		p.Pin(test.name, []netip.Addr{dst.Addr()}, 0)
		if err := p.Decide(test.proto, dst); err != nil {
			t.Errorf("%s does not allow it: %v", flag, err)
		}
	}
}

func TestFlagsForOtherReasons(t *testing.T) {
	for _, test := range []struct {
		r    engine.Refusal
		name string
		want string
	}{
		{engine.Refusal{Why: &policy.Refusal{}}, "www.example.com", "--allow-egress www.example.com"},
		// What a container asks for opens no more, where it is pasted, than that name.
		{engine.Refusal{Why: &policy.Refusal{}}, "no; $(rule)", ""},
		{engine.Refusal{Why: &policy.Refusal{}}, "0.0.0.0/0", ""},
		{engine.Refusal{Why: &policy.Refusal{}}, "192.0.2.7", ""},
		{engine.Refusal{Why: &policy.Refusal{}}, "*", ""},
		{engine.Refusal{Why: &policy.Refusal{}}, "DNS", ""},
		{engine.Refusal{Why: &policy.Refusal{}}, "www.example.com:443/tcp", ""},
		{engine.Refusal{Proto: 6, Why: forwarder.ErrLoopbackClosed}, "", "--host-loopback"},
		{engine.Refusal{Proto: 6, Why: forwarder.ErrOtherNetwork, Container: "box"}, "",
			"usernet network connect NETWORK box"},
		{engine.Refusal{Proto: 6, Why: forwarder.ErrInternal}, "", "--network of one that is not --internal"},
	} {
		if got := allowingFlag(test.r, test.name); got != test.want {
			t.Errorf("%v %q: %q, want %q", test.r.Why, test.name, got, test.want)
		}
	}
}
