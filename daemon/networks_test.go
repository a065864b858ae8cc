package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/static"
)

// closedDriver opens no network.
type closedDriver struct{ bridgeDriver }

var errNotOpened = errors.New("no threads left")

func (closedDriver) Open(context.Context, *network.Network, Env) (*engine.Network, error) {
	return nil, errNotOpened
}

// makeNetworks makes networks of the daemon, by name.
func makeNetworks(t *testing.T, d *Daemon, specs ...network.NetworkSpec) {
	t.Helper()
	for _, spec := range specs {
		if _, _, err := d.CreateNetwork(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailedConnectionLeavesNothing has a connection fail at each step: the container is as it was, nobody is told, and
// its address is free for the next one.
func TestFailedConnectionLeavesNothing(t *testing.T) {
	refused := errors.New("operation not permitted")
	for name, test := range map[string]struct {
		network string
		spec    network.EndpointSpec
		fails   func(d *Daemon, f *fakeSandboxes)
		want    func(error) bool
	}{
		"the sandbox refuses": {
			network: "two",
			fails:   func(_ *Daemon, f *fakeSandboxes) { f.fail = refused },
			want: func(err error) bool {
				return errors.Is(err, refused) && errors.Is(err, errdefs.ErrInternal)
			},
		},
		"no TAP comes out of it": {
			network: "two",
			fails:   func(_ *Daemon, f *fakeSandboxes) { f.lose = true },
			want:    func(err error) bool { return strings.Contains(err.Error(), "eth1 did not come out") },
		},
		"the network does not open": {
			network: "two",
			fails:   func(d *Daemon, _ *fakeSandboxes) { d.drivers = []Driver{closedDriver{}} },
			want:    func(err error) bool { return errors.Is(err, errNotOpened) },
		},
		"it is connected already": {
			network: "one",
			want:    func(err error) bool { return errdefs.Classified(err) },
		},
		"an address of another subnet": {
			network: "two",
			spec:    network.EndpointSpec{IPv4: netip.MustParseAddr("192.0.2.1")},
			want:    func(err error) bool { return errdefs.Classified(err) },
		},
		"there is no such network": {
			network: "three",
			want:    func(err error) bool { return errors.Is(err, errdefs.ErrNotFound) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newFakeDaemon(t)
			makeNetworks(t, d, network.NetworkSpec{Name: "one"}, network.NetworkSpec{Name: "two"})
			before := started(t, d, network.ContainerSpec{Name: "c1", NetworkMode: "one"})
			since := time.Now()
			two, err := d.Network("two")
			if err != nil {
				t.Fatal(err)
			}
			next := two.Pools[0].Gateway.Next() // the first address that is given out
			if test.fails != nil {
				test.fails(d, f)
			}
			err = d.Connect(t.Context(), test.network, "c1", test.spec)
			if err == nil || !test.want(err) {
				t.Errorf("%v", err)
			}
			after, err := d.Container("c1")
			if err != nil || len(after.Endpoints) != 1 || after.Endpoints[0].ID != before.Endpoints[0].ID {
				t.Errorf("it is on %+v, %v", after.Endpoints, err)
			}
			if b := d.bridge(two.ID); b != nil {
				if id, _ := b.Owner(next); id != "" {
					t.Errorf("the switch has %s at %s", id, next)
				}
			}
			if id, _ := d.bridge(before.Endpoints[0].NetworkID).Owner(before.Endpoints[0].IPv4.Addr()); id !=
				before.ID {
				t.Error("it has lost the network that it was on")
			}
			if got := eventsSince(t, d, since); len(got) != 0 {
				t.Errorf("events: %v", got)
			}
			d.drivers, f.lose = drivers(nil, nil, static.New(slog.Default()), nil, nil, nil, nil, nil), false
			if err := d.Connect(t.Context(), "two", "c1", network.EndpointSpec{}); err != nil {
				t.Fatal(err)
			}
			if c, _ := d.Container("c1"); c.Endpoints[1].IPv4.Addr() != next {
				t.Errorf("the next one has %s, want %s", c.Endpoints[1].IPv4, next)
			}
		})
	}
}

// TestDisconnectionsThatTheSandboxRefuses take the container from the network nevertheless: the interface is left over.
func TestDisconnectionsThatTheSandboxRefuses(t *testing.T) {
	d, f := newFakeDaemon(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"})
	c := started(t, d, network.ContainerSpec{Name: "c1", NetworkMode: "one"})
	since := time.Now()
	f.fail = errors.New("no such process")
	if err := d.Disconnect(t.Context(), "one", "c1", false); err != nil {
		t.Fatal(err)
	}
	e := c.Endpoints[0]
	if id, _ := d.bridge(e.NetworkID).Owner(e.IPv4.Addr()); id != "" {
		t.Error("its switch port is there")
	}
	if c, _ = d.Container("c1"); len(c.Endpoints) != 0 {
		t.Errorf("it is on %+v", c.Endpoints)
	}
	if got := eventsSince(t, d, since); len(got) != 1 || got[0].Action != "disconnect" {
		t.Errorf("events: %v", got)
	}
	if err := d.Disconnect(t.Context(), "one", "c1", false); !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("a second time: %v", err)
	}
	if err := d.RemoveNetwork(t.Context(), "one"); err != nil {
		t.Errorf("a network that nobody is on: %v", err)
	}
}

// TestContainersThatDoNotRunAreConnectedInTheModel has nothing asked for in a sandbox that is not there.
func TestContainersThatDoNotRunAreConnectedInTheModel(t *testing.T) {
	d, f := newFakeDaemon(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"})
	if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "c1"}); err != nil {
		t.Fatal(err)
	}
	if err := d.Connect(t.Context(), "one", "c1", network.EndpointSpec{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Disconnect(t.Context(), network.BridgeName, "c1", false); err != nil {
		t.Fatal(err)
	}
	if c, _ := d.Container("c1"); len(c.Endpoints) != 1 || c.Endpoints[0].Network != "one" {
		t.Errorf("it is on %+v", c.Endpoints)
	}
	if got := f.asked(); got != "" || len(d.bridgeList()) != 0 {
		t.Errorf("%q was asked for, and %d networks run", got, len(d.bridgeList()))
	}
}

// TestPrune removes what nothing uses: a network with a container that was only created is used.
func TestPrune(t *testing.T) {
	d, _ := newFakeDaemon(t)
	makeNetworks(t, d,
		network.NetworkSpec{Name: "unused"}, network.NetworkSpec{Name: "kept"}, network.NetworkSpec{Name: "running"},
		network.NetworkSpec{Name: "created"}, network.NetworkSpec{Name: "ran"}, network.NetworkSpec{Name: "another"},
		network.NetworkSpec{Name: "template", ConfigOnly: true})
	started(t, d, network.ContainerSpec{Name: "c1", NetworkMode: "running"})
	started(t, d, network.ContainerSpec{Name: "c2", NetworkMode: "ran"})
	if err := d.ContainerExited(t.Context(), "c2", 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.CreateContainer(t.Context(), network.ContainerSpec{Name: "c3", NetworkMode: "created"}); err !=
		nil {
		t.Fatal(err)
	}
	since := time.Now()
	removed, err := d.PruneNetworks(t.Context(), func(n *network.Network) bool { return n.Name != "kept" })
	if want := []string{"another", "ran", "unused"}; err != nil || !slices.Equal(removed, want) {
		t.Errorf("%v, %v are removed, want %v", removed, err, want)
	}
	var left []string
	for _, n := range d.Networks() {
		left = append(left, n.Name)
	}
	if want := []string{"bridge", "created", "host", "kept", "none", "running", "template"}; !slices.Equal(left, want) {
		t.Errorf("%v are left, want %v", left, want)
	}
	var got []string
	for _, e := range eventsSince(t, d, since) {
		got = append(got, strings.TrimSpace(e.Action+" "+e.Attributes["name"]))
	}
	if want := []string{"destroy another", "destroy ran", "destroy unused", "prune"}; !slices.Equal(got, want) {
		t.Errorf("events: %v, want %v", got, want)
	}
	if len(d.bridgeList()) != 1 {
		t.Errorf("%d networks run, want the one with a container", len(d.bridgeList()))
	}
}

// TestPublishedPortsFollowTheDefaultRoute connects and disconnects a container: its port is bound on the network that
// leads outside, and on none where none does.
func TestPublishedPortsFollowTheDefaultRoute(t *testing.T) {
	d, _ := newFakeDaemon(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "aa"}, network.NetworkSpec{Name: "bb"},
		network.NetworkSpec{Name: "inside", Internal: true})
	lo := netip.MustParseAddr("127.83.1.8")
	c := started(t, d, network.ContainerSpec{
		Name:        "c1",
		NetworkMode: "bb",
		Ports:       []network.PortBinding{{HostIP: lo, Port: 80, End: 80, Proto: network.TCP}},
	})
	first, err := d.Published("c1")
	if err != nil || len(first) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	for _, step := range []struct{ change, on string }{
		{"+inside", "bb"},
		{"+aa", "aa"}, // the first by name
		{"-aa", "bb"},
		{"-bb", ""},
		{"+aa", "aa"},
	} {
		name := step.change[1:]
		if step.change[0] == '+' {
			err = d.Connect(t.Context(), name, "c1", network.EndpointSpec{})
		} else {
			err = d.Disconnect(t.Context(), name, "c1", false)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := d.runtime(c.ID)
		s.mu.Lock()
		on := ""
		for range s.bound.All() {
			on += s.boundOn.record.Name
		}
		s.mu.Unlock()
		if on != step.on {
			t.Errorf("after %s the port is bound on %q, want %q", step.change, on, step.on)
		}
		if list, _ := d.Published("c1"); step.on != "" && (len(list) != 1 || list[0] != first[0]) {
			t.Errorf("after %s it is %v, and was %v", step.change, list, first)
		}
	}
}

// TestPortsArePublishedAndTakenAway changes the ports of a running container, all of what is asked for or nothing.
func TestPortsArePublishedAndTakenAway(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c := started(t, d, network.ContainerSpec{Name: "c1"})
	lo := netip.MustParseAddr("127.83.1.9")
	ports := func(specs ...string) []network.PortBinding {
		list, err := network.ParsePorts(specs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			list[i].HostIP = lo
		}
		return list
	}
	check := func(when string, bound, asked int) {
		t.Helper()
		list, err := d.Published("c1")
		now, _ := d.Container("c1")
		if err != nil || len(list) != bound || countPorts(now.Ports) != asked || len(now.Bound) != bound {
			t.Errorf("%s: %v is bound, and %v asked for, %v", when, list, now.Ports, err)
		}
	}
	made, err := d.PublishPorts(t.Context(), "c1", ports("80-82", "53/udp"))
	if err != nil || len(made) != 4 {
		t.Fatalf("%v, %v", made, err)
	}
	check("at first", 4, 4)
	taken := fmt.Sprintf("%d:90", made[1].Host.Port()) // by itself, for TCP
	if _, err := d.PublishPorts(t.Context(), "c1", ports("91", taken)); err == nil {
		t.Error("a host port is published twice")
	}
	check("after a host port that is taken", 4, 4)
	if err := d.UnpublishPorts(t.Context(), "c1", ports("80", "7")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a port that is not published: %v", err)
	}
	check("after one that is not published", 4, 4)
	if err := d.UnpublishPorts(t.Context(), "c1", ports("81")); err != nil {
		t.Error(err)
	}
	check("without 81", 3, 3)
	if err := d.UnpublishPorts(t.Context(), "c1", []network.PortBinding{
		{HostIP: netip.MustParseAddr("127.83.1.10"), Port: 80, Proto: network.TCP},
	}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the port at another host address: %v", err)
	}
	if err := d.ContainerExited(t.Context(), c.ID, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PublishPorts(t.Context(), c.ID, ports("80")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a port of a container that is gone: %v", err)
	}
}

func countPorts(list []network.PortBinding) (n int) {
	for _, b := range list {
		n += b.Count()
	}
	return n
}
