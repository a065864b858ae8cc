package pasta

import (
	"net/netip"
	"strings"
	"testing"
)

// TestWhatGuestsAreServed: each protocol alone can be switched off, and a namespace that pasta has configured is asked
// for nothing by advertisements, but may ask by DHCP and DHCPv6.
func TestWhatGuestsAreServed(t *testing.T) {
	h := &host{
		Addrs:    []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
		Gateways: [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")},
	}
	for _, c := range []struct{ args, want string }{
		{"1", "dhcp ra dhcpv6"},
		{"--config-net 1", "dhcp dhcpv6"},
		{"--no-ra 1", "dhcp dhcpv6"},
		{"--no-dhcp 1", "ra dhcpv6"},
		{"--no-dhcpv6 1", "dhcp ra"},
		{"--no-dhcp --no-dhcpv6 --no-ra 1", ""},
	} {
		o, err := Parse(strings.Fields(c.args))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if cfg := (&session{o: o, host: h}).autoconf(); cfg != nil {
			for name, served := range map[string]bool{
				"dhcp": cfg.Subnet4.IsValid(), "ra": cfg.Prefix6.IsValid(), "dhcpv6": cfg.Address6.IsValid(),
			} {
				if served {
					got = append(got, name)
				}
			}
		}
		for _, name := range got {
			if !strings.Contains(" "+c.want+" ", " "+name+" ") {
				t.Errorf("%s: %s is served", c.args, name)
			}
		}
		if len(got) != len(strings.Fields(c.want)) {
			t.Errorf("%s: %v is served, want %s", c.args, got, c.want)
		}
	}
}
