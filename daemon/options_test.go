package daemon

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// meanwhileDriver does something while a network is made, and while an endpoint is attached to it.
type meanwhileDriver struct {
	bridgeDriver
	opening, joining func()
	inVLAN           int // endpoints for which a VLAN was joined and not left
}

func (d *meanwhileDriver) Open(ctx context.Context, n *network.Network, env Env) (*engine.Network, error) {
	d.opening()
	return d.bridgeDriver.Open(ctx, n, env)
}

func (d *meanwhileDriver) JoinVLAN(*network.Network, *engine.Network, uint16) (leave func(), err error) {
	d.joining()
	d.inVLAN++
	return func() { d.inVLAN-- }, nil
}

// TestAVLANIsLeftWithItsEndpoints has endpoints in a VLAN come and go in each way that they can.
func TestAVLANIsLeftWithItsEndpoints(t *testing.T) {
	d, sandboxes := newFakeDaemon(t)
	driver := &meanwhileDriver{opening: func() {}, joining: func() {}}
	d.drivers = []Driver{driver}
	for _, name := range []string{"one", "lan"} {
		if _, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	inVLAN := func(when string, want int) {
		t.Helper()
		if driver.inVLAN != want {
			t.Errorf("%s: the VLAN is joined for %d endpoints, want %d", when, driver.inVLAN, want)
		}
	}
	connect := func(c string) error {
		t.Helper()
		return d.Connect(t.Context(), "lan", c, network.EndpointSpec{VLAN: 7})
	}
	startAttached(t, d, "first", "one")
	startAttached(t, d, "second", "one")
	if err := errors.Join(connect("first"), connect("second")); err != nil {
		t.Fatal(err)
	}
	inVLAN("two are in it", 2)
	if err := d.Disconnect(t.Context(), "lan", "first", false); err != nil {
		t.Fatal(err)
	}
	inVLAN("one was disconnected", 1)
	sandboxes.fail = errors.New("no sandbox")
	if err := connect("first"); err == nil {
		t.Error("connected without a sandbox")
	}
	inVLAN("one could not be connected", 1)
	if err := d.RemoveContainer(t.Context(), "second", true); err != nil {
		t.Fatal(err)
	}
	inVLAN("the other was removed", 0)
}

// TestEgressIsChangedMeanwhile changes where a network's containers may connect to while the network is made, while a
// container is attached, and after that. Each time the container asks for a name by what was said last.
func TestEgressIsChangedMeanwhile(t *testing.T) {
	d, _ := newFakeDaemon(t)
	driver := &meanwhileDriver{opening: func() {}, joining: func() {}}
	d.drivers = []Driver{driver}
	change := func(mode, allow string) {
		t.Helper()
		q := api.NetworkUpdate{Egress: &mode, AllowEgress: &[]string{allow}}
		if err := d.UpdateNetwork(t.Context(), "one", q); err != nil {
			t.Error(err)
		}
	}
	n, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	may := func(when string, c *network.Container, want string) {
		t.Helper()
		for _, name := range []string{"a.example", "b.example"} {
			allowed := d.bridge(n.ID).AllowQuery(c.ID, name, netip.Addr{}) == nil
			if allowed != (want == name) {
				t.Errorf("%s: %s may ask for %s: %v", when, c.Name, name, allowed)
			}
		}
	}

	driver.opening = func() { change("deny", "a.example") }
	first, _ := startAttached(t, d, "first", "one")
	driver.opening = func() {}
	may("while the network was made", first, "a.example")

	change("deny", "b.example")
	may("while it ran", first, "b.example")
	second, _ := startAttached(t, d, "second", "one")
	may("before it came", second, "b.example")

	if _, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: "two"}); err != nil {
		t.Fatal(err)
	}
	third, _ := startAttached(t, d, "third", "two")
	driver.joining = func() { change("deny", "a.example") }
	if err := d.Connect(t.Context(), "one", "third", network.EndpointSpec{VLAN: 7}); err != nil {
		t.Fatal(err)
	}
	may("while it was attached", third, "a.example")
	may("while another was attached", first, "a.example")
}
