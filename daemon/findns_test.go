package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/usernet/usernet/network"
)

// TestANamespaceIsKnownByItsInterfaces: the kernel uses numbers of namespaces again, and addresses may begin alike.
func TestANamespaceIsKnownByItsInterfaces(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dev":      "Inter-|   Receive\n face |bytes\n    lo:  0 0\n  eth0:  10 1\n eth11: 3 3\n",
		"fib_trie": "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.9.0.20\n        /32 host LOCAL\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	endpoint := func(name, addr string) *network.Endpoint {
		e := &network.Endpoint{Interface: name}
		if addr != "" {
			e.IPv4 = netip.MustParsePrefix(addr)
		}
		return e
	}
	for name, test := range map[string]struct {
		endpoints []*network.Endpoint
		want      bool
	}{
		"both there":         {[]*network.Endpoint{endpoint("eth0", "10.9.0.20/24")}, true},
		"IPv6 only":          {[]*network.Endpoint{endpoint("eth11", "")}, true},
		"another address":    {[]*network.Endpoint{endpoint("eth0", "10.9.0.2/24")}, false},
		"another interface":  {[]*network.Endpoint{endpoint("eth1", "10.9.0.20/24")}, false},
		"one of two":         {[]*network.Endpoint{endpoint("eth0", "10.9.0.20/24"), endpoint("eth1", "")}, false},
		"configured by else": {[]*network.Endpoint{{Interface: "eth5", Unconfigured: true}}, true},
	} {
		if got := hasInterfaces(dir, &network.Container{Endpoints: test.endpoints}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if hasInterfaces(filepath.Join(dir, "gone"), &network.Container{}) {
		t.Error("a process that is gone has interfaces")
	}
}
