package daemon

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/static"
)

// TestNetworksThatSpanHostsNeedACluster asks a daemon that is in none for everything about them.
func TestNetworksThatSpanHostsNeedACluster(t *testing.T) {
	d := newTestDaemon(t)
	driver, err := d.driverOf(network.DriverOverlay)
	if err != nil {
		t.Fatal(err)
	}
	n := &network.Network{ID: strings.Repeat("a", 64), Name: "wide", Driver: network.DriverOverlay}
	for what, ask := range map[string]func() error{
		"creating one": func() error {
			_, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "wide", Driver: network.DriverOverlay})
			return err
		},
		"validating one": func() error { return driver.Validate(n) },
		"opening one": func() error {
			_, err := driver.Open(t.Context(), n, d.env())
			return err
		},
		"an address": func() error {
			a := allocators(d.drivers)[network.DriverOverlay]
			_, err := a.Reserve(t.Context(), n, network.Pool{}, netip.Addr{}, "e")
			return err
		},
		"leaving": func() error { return d.LeaveCluster(t.Context(), "", true) },
	} {
		if err := ask(); !errors.Is(err, errdefs.ErrForbidden) || !strings.Contains(err.Error(), "--cluster-store") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := d.Cluster(); !errors.Is(err, errdefs.ErrUnavailable) ||
		!strings.Contains(err.Error(), "docs/overlay.md") {
		t.Errorf("what the cluster is: %v", err)
	}
	if list := d.ContainersElsewhere(n.ID); len(list) != 0 {
		t.Errorf("there are containers elsewhere: %v", list)
	}
	allocators(d.drivers)[network.DriverOverlay].Release(n, netip.MustParseAddr("10.0.0.2"), "e")
	if len(d.Networks()) != 3 || len(actions(t, d)) != 0 || d.closeMember() != nil {
		t.Error("a network is there, or was told of")
	}
}

// TestOptionsOfNetworksThatSpanHosts are checked before the cluster is told: peers that are no hosts cannot unseal
// frames.
func TestOptionsOfNetworksThatSpanHosts(t *testing.T) {
	driver := overlayDriver{new(cluster.Cluster)} // which Validate does not ask
	for name, test := range map[string]struct {
		options map[string]string
		want    string // words of the error
	}{
		"none":                {nil, ""},
		"peers, and unsealed": {map[string]string{"usernet.peers": "192.0.2.9", "encrypted": "false"}, ""},
		"peers, and sealed": {map[string]string{"usernet.peers": "192.0.2.9", "encrypted": "true"},
			"encrypted=false"},
		"a policy":   {map[string]string{"usernet.egress": "sometimes"}, "sometimes"},
		"a resolver": {map[string]string{"usernet.dns": "no address"}, "no address"},
	} {
		err := driver.Validate(&network.Network{Name: "wide", Driver: network.DriverOverlay, Options: test.options})
		if (err == nil) != (test.want == "") ||
			err != nil && (!errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestEachDriverThatReservesAddressesIsAsked is about the model's allocators: the other drivers leave that to it.
func TestEachDriverThatReservesAddressesIsAsked(t *testing.T) {
	found := allocators(drivers(nil, nil, static.New(slog.Default()), nil, nil, nil, nil, nil))
	if len(found) != 2 || found[network.DriverOverlay] == nil || found[network.DriverMacvlan] == nil {
		t.Errorf("%v", found)
	}
}
