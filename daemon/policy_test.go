package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
)

// TestRulesKnowWhoeverHasChanged has containers come, go and change on a network with rules about neighbours, and
// compares what the rules decide with rules that were told of all containers at once.
func TestRulesKnowWhoeverHasChanged(t *testing.T) {
	d, _ := newFakeDaemon(t)
	for _, name := range []string{"lab", "other"} {
		if _, _, err := d.CreateNetwork(t.Context(), network.NetworkSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	const text = "default deny; allow app=a -> app=b; allow name=c1 -> *:80/tcp; allow network=other -> app=a"
	if err := d.SetNetworkPolicy(t.Context(), "lab", text); err != nil {
		t.Fatal(err)
	}
	rules, err := policy.ParseNeighbourRules(text)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 3))
	app := func() string { return []string{"a", "b"}[r.IntN(2)] }
	seen := map[netip.Addr]bool{}
	for step := range 150 {
		name := fmt.Sprint("c", r.IntN(4))
		c, err := d.Container(name)
		what := "start"
		switch {
		case err != nil:
			started(t, d, network.ContainerSpec{Name: name, NetworkMode: "lab",
				Labels: map[string]string{"app": app()}})
			err = nil
		case r.IntN(4) == 0:
			what = "remove"
			err = d.RemoveContainer(t.Context(), name, true)
		case r.IntN(3) == 0:
			what = "label"
			err = d.UpdateContainer(t.Context(), name, api.UpdateRequest{Labels: map[string]string{"app": app()}})
		case r.IntN(2) == 0:
			what = "rename"
			if err = d.RenameContainer(t.Context(), name, "renamed"); err == nil {
				err = d.RenameContainer(t.Context(), "renamed", name)
			}
		case len(c.Endpoints) == 1:
			what = "connect"
			err = d.Connect(t.Context(), "other", name, network.EndpointSpec{})
		default:
			what = "disconnect"
			err = d.Disconnect(t.Context(), c.Endpoints[r.IntN(2)].NetworkID, name, false)
			if now, _ := d.Container(name); err == nil && now.Endpoints[0].Network != "lab" {
				err = d.Connect(t.Context(), "lab", name, network.EndpointSpec{})
			}
		}
		if err != nil {
			t.Fatalf("step %d: %s %s: %v", step, what, name, err)
		}
		n, err := d.Network("lab")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range d.Containers() {
			for _, e := range c.Endpoints {
				for _, a := range endpointAddrs(e) {
					seen[a] = true
				}
			}
		}
		b := d.bridge(n.ID)
		if b == nil {
			continue
		}
		want := policy.NewNeighbours(rules)
		want.SetMembers(d.membersOf(n, &members{addrs: map[string][]netip.Addr{}, owners: map[netip.Addr]string{}}))
		for from := range seen {
			for to := range seen {
				src, dst := netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(to, 80)
				got := b.Neighbours().Opening(src, dst, unix.IPPROTO_TCP)
				if told := want.Opening(src, dst, unix.IPPROTO_TCP); (got == nil) != (told == nil) {
					t.Fatalf("step %d: %s %s: %s to %s: %v, want %v", step, what, name, src, dst, got, told)
				}
			}
		}
	}
}
