package network_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/network"
)

// fakeAllocator hands out the addresses of pools for several models, as that of a cluster does for its hosts.
type fakeAllocator struct {
	held struct {
		sync.Mutex
		owners map[netip.Addr]string
	}
	during func() // called in each Reserve; nil: nothing
}

var errTaken = errdefs.Forbidden("Address already in use")

func (f *fakeAllocator) Reserve(
	_ context.Context, _ *network.Network, p network.Pool, want netip.Addr, owner string,
) (netip.Addr, error) {
	if f.during != nil {
		f.during()
	}
	f.held.Lock()
	defer f.held.Unlock()
	if f.held.owners == nil {
		f.held.owners = map[netip.Addr]string{}
	}
	if want.IsValid() {
		if f.held.owners[want] != "" {
			return netip.Addr{}, errTaken
		}
		f.held.owners[want] = owner
		return want, nil
	}
	for a := p.Subnet.Addr(); p.Subnet.Contains(a); a = a.Next() {
		if f.held.owners[a] == "" && !p.Reserved(a) {
			f.held.owners[a] = owner
			return a, nil
		}
	}
	return netip.Addr{}, errdefs.Unavailable("no address is left")
}

func (f *fakeAllocator) Release(_ *network.Network, a netip.Addr, owner string) {
	f.held.Lock()
	defer f.held.Unlock()
	if f.held.owners[a] == owner {
		delete(f.held.owners, a)
	}
}

// owners returns who holds which address.
func (f *fakeAllocator) owners() map[netip.Addr]string {
	f.held.Lock()
	defer f.held.Unlock()
	m := map[netip.Addr]string{}
	for a, o := range f.held.owners {
		m[a] = o
	}
	return m
}

// allocated opens a model whose bridge networks get their addresses from f, with one such network.
func allocated(t *testing.T, f network.Allocator) *network.Model {
	t.Helper()
	m, err := network.Open(network.NewMemoryStore(), network.Options{
		Allocators: map[string]network.Allocator{network.DriverBridge: f},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	yes := true
	_, _, err = m.CreateNetwork(network.NetworkSpec{
		Name:       "wide",
		EnableIPv6: &yes,
		Pools: []network.Pool{
			{Subnet: netip.MustParsePrefix("10.7.0.0/28")},
			{Subnet: netip.MustParsePrefix("fd07::/124")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// addressesIn are those that the endpoints of models have, with the endpoints' ids.
func addressesIn(t *testing.T, models ...*network.Model) map[netip.Addr]string {
	t.Helper()
	found := map[netip.Addr]string{}
	for _, m := range models {
		for _, c := range m.Containers() {
			for _, e := range c.Endpoints {
				for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
					if !p.IsValid() {
						continue
					}
					if other := found[p.Addr()]; other != "" {
						t.Errorf("%s was given to %s and %s", p.Addr(), other, e.ID)
					}
					found[p.Addr()] = e.ID
				}
			}
		}
	}
	return found
}

// TestAllocatorHasWhatEndpointsHave changes two models that share an allocator at random: what is reserved is at each
// step what their endpoints have, and after a refusal nothing more.
func TestAllocatorHasWhatEndpointsHave(t *testing.T) {
	f := &fakeAllocator{}
	models := []*network.Model{allocated(t, f), allocated(t, f)}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for step := range 400 {
		m, name := models[r.IntN(2)], fmt.Sprintf("c%d", r.IntN(12))
		spec := network.EndpointSpec{}
		if r.IntN(2) == 0 {
			spec.IPv4 = netip.AddrFrom4([4]byte{10, 7, 0, byte(r.IntN(20))})
		}
		var err error
		switch r.IntN(5) {
		case 0, 1:
			_, _, err = m.CreateContainer(network.ContainerSpec{
				Name:     name,
				Networks: []network.NamedEndpointSpec{{Network: "wide", EndpointSpec: spec}},
			})
		case 2:
			err = m.RemoveContainer(name)
		case 3:
			if _, _, err = m.Disconnect("wide", name, false); err == nil {
				_, _, err = m.Connect("wide", name, spec)
			}
		case 4:
			_, err = m.EndContainer(name, func(c *network.Container) error { c.Status = network.Exited; return nil })
		}
		if err != nil {
			refused++
		}
		have, reserved := addressesIn(t, models...), f.owners()
		if len(have) != len(reserved) {
			t.Fatalf("step %d (error %v): %d addresses in use, %d reserved", step, err, len(have), len(reserved))
		}
		for a, id := range have {
			if reserved[a] != id {
				t.Fatalf("step %d: endpoint %s has %s, which is reserved for %q", step, id, a, reserved[a])
			}
		}
	}
	if refused == 0 || refused == 400 {
		t.Errorf("%d of 400 changes were refused", refused)
	}
}

// TestNobodyWaitsForAnAllocator changes the model while an allocator is asked.
func TestNobodyWaitsForAnAllocator(t *testing.T) {
	f := &fakeAllocator{}
	m := allocated(t, f)
	asked := 0
	f.during = func() {
		if asked++; asked > 1 { // for IPv6
			return
		}
		if _, _, err := m.CreateContainer(network.ContainerSpec{Name: "other",
			NetworkMode: network.NoneName}); err != nil {
			t.Errorf("another container: %v", err)
		}
	}
	c, _, err := m.CreateContainer(network.ContainerSpec{Name: "c1", NetworkMode: "wide"})
	if err != nil || asked != 2 {
		t.Fatalf("%v; asked %d times", err, asked)
	}
	if e := c.Endpoints[0]; e.IPv4.String() != "10.7.0.2/28" || e.IPv6.String() != "fd07::2/124" {
		t.Errorf("addresses %s and %s", e.IPv4, e.IPv6)
	}
}

// TestRefusedAddressKeepsItsKind has what an allocator says reach the caller, and gives back what was reserved before.
func TestRefusedAddressKeepsItsKind(t *testing.T) {
	f := &fakeAllocator{}
	a, b := allocated(t, f), allocated(t, f)
	on := func(name string) network.ContainerSpec {
		return network.ContainerSpec{
			Name: name,
			Networks: []network.NamedEndpointSpec{
				{Network: "wide", EndpointSpec: network.EndpointSpec{IPv6: netip.MustParseAddr("fd07::7")}},
			},
		}
	}
	if _, _, err := a.CreateContainer(on("c1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.CreateContainer(on("c2")); errdefs.Class(err) != errdefs.ErrForbidden {
		t.Errorf("an address of another model's container: %v", err)
	}
	var list []string
	for addr := range f.owners() {
		list = append(list, addr.String())
	}
	slices.Sort(list)
	if fmt.Sprint(list) != "[10.7.0.2 fd07::7]" {
		t.Errorf("reserved: %v", list)
	}
}
