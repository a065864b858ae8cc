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

// TestANamespaceIsKeptForEachContainer: two are in one where Docker's container is on two networks.
func TestANamespaceIsKeptForEachContainer(t *testing.T) {
	d, f := newFakeDaemon(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"dev": "eth0: 0\n eth1: 0\n", "fib_trie": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	netns, err := os.Open(dir) // it is not looked at here
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	var all []*network.Container
	for _, name := range []string{"eth0", "eth1", "eth2"} {
		c, _ := ran(t, d, f, network.ContainerSpec{Name: name})
		c.Moves, c.Endpoints = true, []*network.Endpoint{{Interface: name, Unconfigured: true}}
		all = append(all, c)
	}
	if others := d.keepFound(netns, dir, all); len(others) != 1 || others[0] != all[2] {
		t.Errorf("without a namespace there are %v", others)
	}
	for _, c := range all {
		if kept := d.runtime(c.ID).netns.Load() != nil; kept != (c.Name != "eth2") {
			t.Errorf("the namespace is kept for %s: %t", c.Name, kept)
		}
	}
}
