package network_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/usernet/usernet/network"
)

// fakeLeaser gives the addresses of networks that want a DHCP server's.
type fakeLeaser struct {
	fakeAllocator
	claims  []network.Claim
	outside map[netip.Addr]string // stations that the model does not know of
}

func (f *fakeLeaser) Leases(n *network.Network, ipv6 bool) bool {
	return !ipv6 && n.Settings().DHCP || ipv6 && n.Settings().Autoconf
}

func (f *fakeLeaser) Taken(_ context.Context, _ *network.Network, c network.Claim) (string, error) {
	return f.outside[c.Want], nil
}

func (f *fakeLeaser) Lease(
	ctx context.Context, n *network.Network, p network.Pool, c network.Claim,
) (netip.Addr, error) {
	f.claims = append(f.claims, c)
	return f.Reserve(ctx, n, p, c.Want, c.Owner)
}

// directModel has a model with one physical network, with options besides its parent.
func directModel(t *testing.T, l *fakeLeaser, options map[string]string) (*network.Model, *network.Network) {
	t.Helper()
	m, err := network.Open(network.NewMemoryStore(), network.Options{
		Allocators: map[string]network.Allocator{network.DriverMacvlan: l},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	all := map[string]string{"parent": "eth9"}
	for k, v := range options {
		all[k] = v
	}
	n, _, err := m.CreateNetwork(network.NetworkSpec{
		Name: "lan", Driver: network.DriverMacvlan, Options: all,
		Pools: []network.Pool{{Subnet: netip.MustParsePrefix("192.0.2.0/24")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, n
}

// TestALeaseIsForAStation: what a DHCP server is asked has the MAC address that the endpoint gets, and the container's
// name.
func TestALeaseIsForAStation(t *testing.T) {
	l := new(fakeLeaser)
	m, _ := directModel(t, l, map[string]string{"usernet.dhcp": "true"})
	c, _, err := m.CreateContainer(network.ContainerSpec{Name: "web", NetworkMode: "lan"})
	if err != nil {
		t.Fatal(err)
	}
	e := c.Endpoints[0]
	if got := l.claims[0]; got.Owner != e.ID || got.MAC != e.MAC || got.Hostname != "web" || e.MAC[0] != 2 {
		t.Errorf("claimed %+v for %+v", got, e)
	}
	want := network.MAC{2, 0, 0x5e, 0x10, 0, 1}
	other, _, err := m.CreateContainer(network.ContainerSpec{Name: "xx", Hostname: "printer", NetworkMode: "lan",
		Networks: []network.NamedEndpointSpec{{Network: "lan", EndpointSpec: network.EndpointSpec{
			MAC: want, IPv4: netip.MustParseAddr("192.0.2.77"),
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	got := l.claims[1]
	if got.MAC != want || other.Endpoints[0].MAC != want || got.Hostname != "printer" ||
		other.Endpoints[0].IPv4.Addr() != netip.MustParseAddr("192.0.2.77") {
		t.Errorf("claimed %+v for %+v", got, other.Endpoints[0])
	}
	if _, _, err := m.Disconnect("lan", "xx", false); err != nil {
		t.Fatal(err)
	}
	if owner := l.held.owners[netip.MustParseAddr("192.0.2.77")]; owner != "" {
		t.Errorf("the address is still %s's", owner)
	}
	if l.Leases(&network.Network{Driver: network.DriverMacvlan}, false) {
		t.Error("a network of addresses that were given is a DHCP server's")
	}
}

// TestADeviceOfOneMAC has one container, with that MAC address.
func TestADeviceOfOneMAC(t *testing.T) {
	m, _ := directModel(t, new(fakeLeaser), map[string]string{"usernet.mac": "02:00:5e:00:00:09"})
	create := func(name, mac string) error {
		spec := network.EndpointSpec{}
		if mac != "" {
			spec.MAC, _ = network.ParseMAC(mac)
		}
		c, _, err := m.CreateContainer(network.ContainerSpec{Name: name, NetworkMode: "lan",
			Networks: []network.NamedEndpointSpec{{Network: "lan", EndpointSpec: spec}}})
		if err == nil && c.Endpoints[0].MAC.String() != "02:00:5e:00:00:09" {
			t.Errorf("%s has the MAC %v", name, c.Endpoints[0].MAC)
		}
		return err
	}
	if err := create("aa", "02:00:00:00:00:01"); err == nil || !strings.Contains(err.Error(), "alone") {
		t.Errorf("another MAC: %v", err)
	}
	if err := create("bb", ""); err != nil {
		t.Error(err)
	}
	if err := create("cc", ""); err == nil || !strings.Contains(err.Error(), "takes one MAC address") {
		t.Errorf("a second container: %v", err)
	}
}

// TestTheHostOnAPhysicalNetwork has addresses there that nobody else can have, and rules that it could not hold are
// refused.
func TestTheHostOnAPhysicalNetwork(t *testing.T) {
	m, n := directModel(t, new(fakeLeaser), nil)
	n.EnableIPv6 = true
	for _, id := range []string{n.ID, strings.Repeat("0", 64), strings.Repeat("f", 64)} {
		n.ID = id
		list := n.HostAddrs()
		if len(list) != 2 || !list[0].Addr().IsLinkLocalUnicast() || list[0].Bits() != 32 || list[1].Bits() != 128 {
			t.Fatalf("%v", list)
		}
		if a := list[0].Addr().As4(); a[2] == 0 || a[2] == 255 {
			t.Errorf("%v is reserved", list[0])
		}
	}
	_, _, err := m.CreateContainer(network.ContainerSpec{Name: "xx", NetworkMode: "lan", Egress: "deny"})
	if err == nil || !strings.Contains(err.Error(), "rules about where it may connect to") {
		t.Errorf("a container with egress rules: %v", err)
	}
}

// TestAddressesOfOthersOutsideAreNotChosen: the lowest address that nobody outside has is, and one that was asked for
// is refused where a station has it.
func TestAddressesOfOthersOutsideAreNotChosen(t *testing.T) {
	l := &fakeLeaser{outside: map[netip.Addr]string{}}
	for i := range 3 {
		l.outside[netip.AddrFrom4([4]byte{192, 0, 2, byte(2 + i)})] = "02:00:00:00:00:09"
	}
	m, _ := directModel(t, l, nil)
	c, _, err := m.CreateContainer(network.ContainerSpec{Name: "web", NetworkMode: "lan"})
	if err != nil || c.Endpoints[0].IPv4.Addr() != netip.MustParseAddr("192.0.2.5") || c.Endpoints[0].DHCP {
		t.Errorf("%+v, %v", c.Endpoints[0], err)
	}
	ask := func(a string) error {
		_, _, err := m.CreateContainer(network.ContainerSpec{Name: "x" + a, NetworkMode: "lan",
			Networks: []network.NamedEndpointSpec{{Network: "lan", EndpointSpec: network.EndpointSpec{
				IPv4: netip.MustParseAddr(a)}}}})
		return err
	}
	if err := ask("192.0.2.3"); err == nil || !strings.Contains(err.Error(), "02:00:00:00:00:09") {
		t.Errorf("an address of a station outside: %v", err)
	}
	if err := ask("192.0.2.77"); err != nil {
		t.Error(err)
	}
	for i := range 20 {
		l.outside[netip.AddrFrom4([4]byte{192, 0, 2, byte(6 + i)})] = "02:00:00:00:00:09"
	}
	if _, _, err = m.CreateContainer(network.ContainerSpec{Name: "more", NetworkMode: "lan"}); err == nil ||
		!strings.Contains(err.Error(), "--ip-range") {
		t.Errorf("all are others': %v", err)
	}
}

// TestARouterIsKnownByItsLink: the gateway of a physical network's IPv6 subnet may be link-local.
func TestARouterIsKnownByItsLink(t *testing.T) {
	store := network.NewMemoryStore()
	m, err := network.Open(store, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	on := true
	pool := network.Pool{Subnet: netip.MustParsePrefix("2001:db8:1::/64"), Gateway: netip.MustParseAddr("fe80::1")}
	spec := network.NetworkSpec{Name: "lan", Driver: network.DriverMacvlan, EnableIPv6: &on,
		Options: map[string]string{"parent": "eth9"}, Pools: []network.Pool{pool}}
	if _, _, err := m.CreateNetwork(spec); err != nil {
		t.Fatal(err)
	}
	spec.Name, spec.Driver, spec.Options = "other", network.DriverBridge, nil
	spec.Pools[0].Subnet = netip.MustParsePrefix("2001:db8:2::/64")
	if _, _, err := m.CreateNetwork(spec); err == nil {
		t.Error("a bridge's gateway is outside of its subnet")
	}
	if m, err = network.Open(store, network.Options{}); err != nil {
		t.Fatalf("what was stored is not read: %v", err)
	}
	if n, err := m.Network("lan"); err != nil || n.Pools[1].Gateway != pool.Gateway {
		t.Errorf("%+v, %v", n, err)
	}
}
