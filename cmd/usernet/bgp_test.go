package main

import (
	"net/netip"
	"strings"
	"testing"
)

// TestARouterIsAnotherHost refuses routers at addresses of this host.
func TestARouterIsAnotherHost(t *testing.T) {
	for _, neighbor := range []string{"127.0.0.1", "127.0.0.2:1179@65001", "[::1]:179"} {
		o := bgpOptions{neighbors: []string{neighbor}, asn: 65000, addrs: []string{"192.0.2.1"}}
		if _, err := o.config(); err == nil || !strings.Contains(err.Error(), "is this host itself") {
			t.Errorf("%s: %v", neighbor, err)
		}
	}
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.1") || a.IsLinkLocalUnicast() }
	for router, refused := range map[string]bool{"192.0.2.1": true, "192.0.2.2": false, "fe80::1%lo": false} {
		if err := checkOther(netip.MustParseAddr(router), own); (err != nil) != refused {
			t.Errorf("%s: %v", router, err)
		}
	}
}
