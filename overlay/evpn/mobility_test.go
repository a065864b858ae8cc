package evpn

import (
	"math"
	"net/netip"
	"testing"
)

// TestAMACIsAnnouncedByWhoeverHasItLast follows an endpoint of this host through what others claim.
func TestAMACIsAnnouncedByWhoeverHasItLast(t *testing.T) {
	low, high := netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.9")
	at := func(a netip.Addr, n uint32) *claim { return &claim{sequence: n, at: a} }
	stuck := &claim{sticky: true, at: high}
	type step struct {
		other    *claim
		yielded  bool
		sequence uint32 // where it is not yielded
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"nobody else", []step{{nil, false, 0}, {nil, false, 0}}},
		{"it has moved here", []step{{at(low, 3), false, 4}, {at(low, 3), false, 4}, {nil, false, 4}}},
		{"it moves away", []step{{nil, false, 0}, {at(high, 1), true, 0}, {at(high, 1), true, 0},
			{at(high, 2), true, 0}}},
		{"it moves away and comes back", []step{{nil, false, 0}, {at(high, 1), true, 0}, {nil, false, 2}}},
		{"both began at once, the other is lower", []step{{nil, false, 0}, {at(low, 0), true, 0}}},
		{"both began at once, the other is higher", []step{{nil, false, 0}, {at(high, 0), false, 0}}},
		{"another cannot move", []step{{stuck, true, 0}, {stuck, true, 0}, {nil, false, 1}}},
		{"it has moved as often as can be counted", []step{{at(high, math.MaxUint32), true, 0},
			{nil, false, math.MaxUint32}}},
		{"what beat it is gone, and another is there", []step{{nil, false, 0}, {at(high, 5), true, 0},
			{at(high, 0), false, 6}}},
	} {
		o := ownMAC{claim: claim{at: self}}
		yielded := false
		for i, s := range test.steps {
			lost := o.decide(s.other)
			if lost != (o.yielded && !yielded) || o.yielded != s.yielded || !o.yielded && o.sequence != s.sequence {
				t.Errorf("%s, step %d: lost %v, %+v, want %+v", test.name, i, lost, o, s)
			}
			yielded = o.yielded
		}
	}
}
