package hostaddr

import (
	"net/netip"
	"testing"
)

func TestPossible(t *testing.T) {
	for s, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "127.0.0.1": true, "fe80::1": true, "::ffff:192.0.2.1": true,
		"0.0.0.0": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"::ffff:255.255.255.255": false, "::ffff:0.0.0.0": false,
	} {
		if got := Possible(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
	if Possible(netip.Addr{}) {
		t.Error("no address at all is one")
	}
}
