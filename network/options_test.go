package network

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
)

// TestNoOptionIsIgnored walks the options of networks and endpoints: each one that is accepted refuses a value that it
// cannot act on, or says in its table why any value is possible, and what is not in the tables is refused by its name.
func TestNoOptionIsIgnored(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	// Package daemon checks them.
	byDaemon := map[string]bool{"usernet.allow_egress": true, "usernet.dns": true, "usernet.egress": true,
		"usernet.policy": true, "usernet.outbound_interface": true} // an interface may appear later
	create := func(options map[string]string) error {
		n, _, err := m.CreateNetwork(NetworkSpec{Name: "x", Options: options})
		if err == nil {
			err = m.RemoveNetwork(n.ID)
		}
		return err
	}
	refused := func(err error, words ...string) {
		t.Helper()
		if errdefs.Class(err) != errdefs.ErrInvalid {
			t.Errorf("%v, want a refusal with %q", err, words)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v lacks %q", err, w)
			}
		}
	}
	for _, o := range NetworkOptions {
		if !byDaemon[o.Name] {
			refused(create(map[string]string{o.Name: "not/possible"}), o.Name)
		}
		if o.Doc == "" {
			t.Errorf("%s has no line for docs", o.Name)
		}
		for _, v := range o.Values {
			if strings.Contains(o.Name, "enable_ipv4") || v == "isolated" {
				continue // which need IPv6, or an internal network
			}
			if err := create(map[string]string{o.Name: v}); err != nil {
				t.Errorf("%s=%s: %v", o.Name, v, err)
			}
		}
	}
	for name := range impossible {
		refused(create(map[string]string{name: "x"}), name, "is not possible: ")
	}
	for _, name := range []string{"foo", "usernet.nosuch", "com.docker.network.bridge.enable_foo", ""} {
		refused(create(map[string]string{name: "true"}), "unknown option "+name)
	}
	var s Settings
	refused(setPeers(&s.Peers, "192.0.2.3:0"), "192.0.2.3:0", "from 1 to 65535")
	for _, nobody := range []string{
		"0.0.0.0", "::", "255.255.255.255", "255.255.255.255:4789", "::ffff:255.255.255.255", "224.0.0.1",
		"[ff02::1]:4789", "fe80::1%eth0", "",
	} {
		refused(setPeers(&s.Peers, "192.0.2.3,"+nobody), "is no peer")
		refused(setAddrs(&s.BGPNextHop, nobody), "is no address of a host")
	}
	if err := setPeers(&s.Peers, "192.0.2.3,192.0.2.4,192.0.2.3"); err != nil || len(s.Peers) != 2 {
		t.Errorf("a peer that is named twice: %v, %v", s.Peers, err)
	}
	for _, mode := range []string{"routed", "nat-unprotected", "isolated"} {
		refused(create(map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": mode}), "mode")
	}
	if _, _, err := m.CreateNetwork(NetworkSpec{
		Name:     "in",
		Internal: true,
		Options:  map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
	}); err != nil {
		t.Error(err)
	}
	refused(create(map[string]string{"com.docker.network.bridge.inhibit_ipv4": "true"}), "inhibit_ipv4")

	c, _, err := m.CreateContainer(ContainerSpec{Name: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(options map[string]string) error {
		_, _, err := m.Connect("in", c.ID, EndpointSpec{DriverOpts: options})
		return err
	}
	for _, o := range EndpointOptions {
		refused(connect(map[string]string{o.Name: "not/possible"}), o.Name)
	}
	for _, name := range []string{"foo", "com.docker.network.endpoint.sysctls"} {
		refused(connect(map[string]string{name: "x"}), "driver option "+name)
	}
}

func TestNamesOfNetworks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	m := open(t, path)
	for _, name := range []string{"test 01", "test@#$", "a b", "ü", "x/y", "-x", "..",
		strings.Repeat("n", maxNetworkName)} {
		if _, _, err := m.CreateNetwork(NetworkSpec{Name: name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", " ", "\t", "a\nb", "a\x1b[31m", "\xff", strings.Repeat("n", maxNetworkName+1)} {
		if _, _, err := m.CreateNetwork(NetworkSpec{Name: name}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := openAt(path, Options{})
	if err != nil {
		t.Fatal(err) // what was accepted has to be read again
	}
	defer m.Close()
	if _, err := m.Network("x/y"); err != nil {
		t.Error(err)
	}
}

// TestForcedDisconnectFromARemovedNetwork drops the reference that a stopped container has to a network that is gone.
func TestForcedDisconnectFromARemovedNetwork(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	n, _, err := m.CreateNetwork(NetworkSpec{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := m.CreateContainer(ContainerSpec{Name: "c1", NetworkMode: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateContainer(c.ID, func(c *Container) error { c.Status = Exited; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveNetwork(n.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Disconnect("test", "c1", false); err == nil {
		t.Error("without force it succeeds")
	}
	if _, _, err := m.Disconnect("other", "c1", true); err == nil ||
		!strings.Contains(err.Error(), "network other not found") {
		t.Errorf("another network: %v", err)
	}
	c, e, err := m.Disconnect("test", "c1", true)
	if err != nil || e.Network != "test" || len(c.Endpoints) != 0 {
		t.Errorf("%v, %v, %v", c, e, err)
	}
}
