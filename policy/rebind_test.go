package policy

import (
	"net/netip"
	"testing"
)

func TestPublicNamesHaveNoPrivateAddresses(t *testing.T) {
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.1") }
	for _, test := range []struct {
		mode       Mode
		rules      []string
		name, addr string
		ok         bool
	}{
		{"no-rebind", nil, "evil.example.com", "192.0.2.1", true},
		{"no-rebind", nil, "evil.example.com", "2001:db8::1", true},
		{"no-rebind", nil, "evil.example.com", "10.1.2.3", false},
		{"no-rebind", nil, "evil.example.com", "172.31.255.255", false},
		{"no-rebind", nil, "evil.example.com", "172.32.0.0", true},
		{"no-rebind", nil, "evil.example.com", "192.168.0.1", false},
		{"no-rebind", nil, "evil.example.com", "100.64.0.1", false},
		{"no-rebind", nil, "evil.example.com", "127.0.0.1", false},
		{"no-rebind", nil, "evil.example.com", "0.0.0.0", false},
		{"no-rebind", nil, "evil.example.com", "169.254.169.254", false},
		{"no-rebind", nil, "evil.example.com", "::1", false},
		{"no-rebind", nil, "evil.example.com", "::", false},
		{"no-rebind", nil, "evil.example.com", "fd00::1", false},
		{"no-rebind", nil, "evil.example.com", "fe80::1", false},
		{"no-rebind", nil, "evil.example.com", "::ffff:10.0.0.1", false},
		{"no-rebind", nil, "evil.example.com", "::10.0.0.1", false},
		{"no-rebind", nil, "evil.example.com", "64:ff9b::10.0.0.1", false},
		{"no-rebind", nil, "evil.example.com", "64:ff9b::192.0.2.1", true},
		{"no-rebind", nil, "evil.example.com", "64:ff9b:1::192.168.0.1", false},
		{"no-rebind", nil, "evil.example.com", "2002:a00:1::1", false},
		{"no-rebind", nil, "evil.example.com", "2002:c000:201::1", true},
		{"no-rebind", nil, "evil.example.com", "198.51.100.1", false}, // the machine's own
		{"no-rebind", nil, "nas", "192.168.0.1", true},
		{"no-rebind", nil, "nas.local", "192.168.0.1", true},
		{"no-rebind", nil, "nas.home.arpa", "192.168.0.1", true},
		{"no-rebind", nil, "local.example.com", "192.168.0.1", false},
		{"no-rebind", nil, "notlocal", "192.168.0.1", true},
		{"no-rebind", nil, "evil.notlocal", "192.168.0.1", false},
		{"no-rebind", []string{"vpn.example.com"}, "vpn.example.com", "10.0.0.1", true},
		{"no-rebind", []string{"*.example.com:443"}, "a.example.com", "10.0.0.1", true},
		{"no-rebind", []string{"*.example.com"}, "example.com", "10.0.0.1", false},
		{"no-rebind", []string{"*", "dns", "10.0.0.0/8"}, "a.example.com", "10.0.0.1", false},
		{"deny,no-rebind", []string{"*"}, "a.example.com", "10.0.0.1", false},
		{"allow", nil, "evil.example.com", "10.0.0.1", true},
		{"deny", nil, "evil.example.com", "10.0.0.1", true},
		{"", nil, "evil.example.com", "127.0.0.1", true},
	} {
		p, _ := made(t, test.mode, test.rules...)
		if err := p.AllowAnswer(test.name, netip.MustParseAddr(test.addr), own); (err == nil) != test.ok {
			t.Errorf("%s %v, %s is %s: %v", test.mode, test.rules, test.name, test.addr, err)
		}
	}
	p, _ := made(t, "no-rebind")
	if p.AllowAnswer("evil.example.com", netip.MustParseAddr("198.51.100.1"), nil) != nil {
		t.Error("without knowing the machine's addresses, one of them is refused")
	}
	if (*Policy)(nil).AllowAnswer("evil.example.com", netip.MustParseAddr("10.0.0.1"), own) != nil {
		t.Error("no policy refuses an answer")
	}
}

func TestNoRebindAllowsWhatItsModeAllows(t *testing.T) {
	to := netip.MustParseAddrPort("192.0.2.1:80")
	for mode, ok := range map[Mode]bool{"no-rebind": true, "allow,no-rebind": true, "deny,no-rebind": false} {
		p, _ := made(t, mode)
		if err := p.Decide(tcp, to); (err == nil) != ok {
			t.Errorf("%s: %v", mode, err)
		}
		if err := p.AllowQuery("www.example.com", netip.Addr{}); (err == nil) != ok {
			t.Errorf("%s, asking: %v", mode, err)
		}
	}
}

// FuzzWithin compares it with the rule said label by label.
func FuzzWithin(f *testing.F) {
	for _, s := range [][2]string{{"a.b", "b"}, {"b", "b"}, {"ab", "b"}, {"", ""}, {".b", "b"}, {"a.b", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, domain string) {
		want := false
		for i := range len(name) + 1 {
			if (i == 0 || name[i-1] == '.') && name[i:] == domain {
				want = domain != ""
			}
		}
		if got := Within(name, domain); got != want {
			t.Errorf("%q within %q: %v", name, domain, got)
		}
	})
}
