package forwarder

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestFlowTable adds and removes random flows of some containers, and compares with a list of them.
func TestFlowTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	table := flowTable{}
	var have []*flow
	for range 2000 {
		if i := r.IntN(40); i < len(have) {
			table.remove(have[i])
			table.remove(have[i]) // again, which does nothing
			have = slices.Delete(have, i, i+1)
		} else {
			a := netip.AddrFrom4([4]byte{10, 1, 0, byte(r.IntN(5))})
			fl := &flow{inside: netip.AddrPortFrom(a, uint16(r.IntN(3)))}
			table.add(fl)
			have = append(have, fl)
		}
		all := table.all()
		missing := func(fl *flow) bool { return !slices.Contains(all, fl) }
		if len(all) != len(have) || slices.ContainsFunc(have, missing) {
			t.Fatalf("%d flows, want %d", len(all), len(have))
		}
		for a, own := range table {
			for fl := range own {
				if fl.inside.Addr() != a {
					t.Fatalf("a flow of %s is among those of %s", fl.inside, a)
				}
			}
			if len(own) == 0 {
				t.Fatalf("%s has a list of no flows", a)
			}
		}
	}
}
