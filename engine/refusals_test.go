package engine

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/policy"
)

func TestRefusalsAreBoundedForEachContainer(t *testing.T) {
	n, why := &Network{}, &policy.Refusal{Rule: "a rule"}
	to := func(port int) Refusal {
		dst := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(port))
		return Refusal{Proto: 6, Destination: dst, Why: why}
	}
	for range 3 {
		n.refusals.add("victim", to(443))
	}
	for port := range 1000 {
		n.refusals.add("scanner", to(port+1))
	}
	list := n.Refusals()
	if len(list) != keptRefusals+1 {
		t.Fatalf("%d refusals of two containers, want %d", len(list), keptRefusals+1)
	}
	if first := list[0]; first.Destination.Port() != 443 || first.Count != 3 {
		t.Errorf("a container's refusals pushed out another's: the oldest is %+v", first)
	}
	if last := list[len(list)-1]; last.Destination.Port() != 1000 {
		t.Errorf("the latest is %+v, want port 1000", last)
	}
	for i := range 10 * keptRefusedContainers {
		n.refusals.add(fmt.Sprint("container ", i), to(80))
	}
	if list := n.Refusals(); len(list) != keptRefusedContainers {
		t.Errorf("%d refusals, want one of each of %d containers", len(list), keptRefusedContainers)
	}
}

func TestRepeatedRefusalsAllocateNothing(t *testing.T) {
	n, why := &Network{}, &policy.Refusal{Rule: "a rule"}
	one := Refusal{Proto: 17, Destination: netip.MustParseAddrPort("192.0.2.7:53"), Why: why}
	n.refusals.add("box", one)
	if got := testing.AllocsPerRun(100, func() { n.refusals.add("box", one) }); got != 0 {
		t.Errorf("%v allocations for a refusal that is known", got)
	}
}
