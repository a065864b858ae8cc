package cluster

import (
	"net/netip"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

func TestAcceptedRoutes(t *testing.T) {
	for s, want := range map[string]bool{
		"10.9.0.0/16": true, "10.9.0.0/16@0123456789ab": true, "2001:db8::/32": true, "0.0.0.0/0": false,
		"10.0.0.0/7":  false,
		"10.9.0.1/16": false, "127.0.0.0/8": false, "169.254.0.0/16": false, "224.0.0.0/8": false, "::/0": false,
		"fe80::/64": false, "10.9.0.0/16@beta": false, "10.9.0.0/16@": false, "": false, "10.9.0.0": false,
	} {
		if _, err := ParseAcceptedRoute(s); (err == nil) != want {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestRoutesAreClaimedAndTakenByConsent: a subnet is behind one host, and used by those alone that accept it.
func TestRoutesAreClaimedAndTakenByConsent(t *testing.T) {
	hub := tabletest.NewHub()
	a, b, c := member(t, hub, "a"), member(t, hub, "b"), member(t, hub, "c")
	p, inside := netip.MustParsePrefix("10.99.0.0/16"), netip.MustParsePrefix("10.99.7.0/24")
	a.cfg.AcceptRoutes = []AcceptedRoute{{netip.MustParsePrefix("10.96.0.0/11"), string(b.Identity().ID[:8])}}
	if err := b.Expose(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	state := func(m *Cluster, p netip.Prefix) string {
		for _, r := range m.Status().Routes {
			if r.Prefix == p {
				return string(r.Host.Short()) + ": " + r.Unused
			}
		}
		return "none"
	}
	short := b.Identity().ID.Short()
	until(t, "a uses it", func() bool { return state(a, p) == short+": " })
	until(t, "c does not", func() bool { return state(c, p) == short+": "+routeRefused })
	if err := c.Expose(t.Context(), p); errdefs.Class(err) != errdefs.ErrConflict {
		t.Errorf("a second host has it: %v", err)
	}
	if err := c.Expose(t.Context(), inside); errdefs.Class(err) != errdefs.ErrConflict {
		t.Errorf("a second host has a part of it: %v", err)
	}
	ov := aNetwork("ov", "10.0.0.0/24")
	if err := a.CreateNetwork(t.Context(), ov); err != nil {
		t.Fatal(err)
	}
	until(t, "b knows the network", func() bool { _, is := b.Table().Network(ov.ID); return is })
	if err := b.Expose(t.Context(), netip.MustParsePrefix("10.0.0.0/16")); errdefs.Class(err) != errdefs.ErrConflict {
		t.Errorf("it draws a network of the cluster to itself: %v", err)
	}

	// A host that does not keep to that writes the records itself.
	value, err := overlay.Encode(overlay.Route{Host: c.Identity().ID, Prefix: inside})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Table().Claim(t.Context(), overlay.RouteKey(inside), value); err != nil {
		t.Fatal(err)
	}
	until(t, "a does not use it", func() bool { return state(a, inside) == c.Identity().ID.Short()+": "+routeRefused })
	a.cfg.AcceptRoutes[0].Host = ""
	if got := state(a, inside); got != c.Identity().ID.Short()+": "+routeForeign {
		t.Errorf("a part of another host's subnet: %s", got)
	}
	if err := b.Unexpose(p); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone", func() bool { return state(a, p) == "none" })
	if err := b.Unexpose(p); errdefs.Class(err) != errdefs.ErrNotFound {
		t.Errorf("what is not exposed: %v", err)
	}
}

func TestExposedSubnetsStayThroughRestarts(t *testing.T) {
	hub := tabletest.NewHub()
	b := member(t, hub, "b")
	p := netip.MustParsePrefix("198.51.100.0/24")
	if err := b.Expose(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	list, err := loadExposed(b.cfg.Dir)
	if err != nil || len(list) != 1 || list[0] != p {
		t.Errorf("%v, %v", list, err)
	}
}
