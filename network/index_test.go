package network

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// checkIndex compares what is found without going through all records with a count of all records.
func checkIndex(t *testing.T, m *Model) {
	t.Helper()
	want := map[posting]bool{}
	used, macs := map[string]map[netip.Addr]int{}, map[string]map[MAC]int{}
	for id := range m.addresses {
		used[id], macs[id] = map[netip.Addr]int{}, map[MAC]int{}
	}
	for _, n := range m.networks {
		for _, term := range n.terms() {
			want[posting{term, n.ID}] = true
		}
	}
	for _, c := range m.containers {
		for _, term := range c.terms() {
			want[posting{term, c.ID}] = true
		}
		for _, e := range c.Endpoints {
			list := slices.Clone(e.LinkLocal)
			if c.Status == Exited {
				list = nil
			}
			for _, a := range append(list, e.IPv4.Addr(), e.IPv6.Addr()) {
				if a.IsValid() {
					used[e.NetworkID][a]++
				}
			}
			if e.MAC != (MAC{}) {
				macs[e.NetworkID][e.MAC]++
			}
		}
	}
	got := map[posting]bool{}
	m.postings.tree.Ascend(func(p posting) bool { got[p] = true; return true })
	if !maps.Equal(got, want) {
		t.Errorf("terms %v, want %v", got, want)
	}
	for id, a := range m.addresses {
		if !maps.Equal(a.used, used[id]) || !maps.Equal(a.macs, macs[id]) {
			t.Errorf("network %s: addresses %v, %v, want %v, %v", id, a.used, a.macs, used[id], macs[id])
		}
		n := m.networks[id]
		if n == nil && len(a.used)+len(a.macs) == 0 {
			t.Errorf("network %s is gone, and its addresses are not", id)
		}
		if n == nil {
			continue
		}
		for i := range n.Pools {
			checkLowest(t, m.taken(id), &n.Pools[i])
		}
	}
}

// checkLowest compares the lowest address that is free with a walk through the pool.
func checkLowest(t *testing.T, used taken, p *Pool) {
	t.Helper()
	got, ok := used.lowestFree(p)
	want := netip.Addr{}
	for a := p.span().Masked().Addr(); p.span().Contains(a); a = a.Next() {
		if !used.has(a) && !p.Reserved(a) {
			want = a
			break
		}
	}
	if got != want || ok != want.IsValid() {
		t.Errorf("lowest free address of %s: %s, %v, want %s of %v", p.Subnet, got, ok, want, used.used)
	}
}

// TestLowestFreeAddress takes and gives back random addresses, lowest and others, in pools of both families, also at
// the end of the address space, with ranges, gateways and reserved addresses.
func TestLowestFreeAddress(t *testing.T) {
	pool := func(subnet, within, gateway string, aux ...string) Pool {
		p := Pool{Subnet: netip.MustParsePrefix(subnet), Gateway: netip.MustParseAddr(gateway),
			Aux: map[string]netip.Addr{}}
		if within != "" {
			p.Range = netip.MustParsePrefix(within)
		}
		for _, a := range aux {
			p.Aux[a] = netip.MustParseAddr(a)
		}
		return p
	}
	for _, pools := range [][]Pool{
		{pool("10.1.0.0/27", "", "10.1.0.1")},
		{pool("10.1.0.0/26", "10.1.0.32/28", "10.1.0.40", "10.1.0.33", "10.1.0.2")},
		{pool("255.255.255.240/28", "", "255.255.255.241"), pool("fd00::/124", "", "fd00::3", "fd00::7")},
		{pool("10.1.0.0/30", "", "10.1.0.1"), pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/125", "",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff1")},
	} {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			recs := newRecords()
			a := recs.addressesOf("n")
			a.setPools(pools)
			var have []netip.Addr
			for range 300 {
				p := &pools[r.IntN(len(pools))]
				used := recs.taken("n")
				checkLowest(t, used, p)
				for range r.IntN(3) { // of which somebody outside has some
					if x, ok := used.lowestFree(p); ok {
						used.more[x] = true
					}
				}
				checkLowest(t, used, p)
				lowest, ok := used.lowestFree(p)
				switch r.IntN(4) {
				case 0, 1:
					if ok {
						a.take(lowest)
						have = append(have, lowest)
					}
				case 2: // one that was asked for, also twice, or reserved
					x := p.Subnet.Addr()
					for range r.IntN(20) {
						if p.Subnet.Contains(x.Next()) {
							x = x.Next()
						}
					}
					a.take(x)
					have = append(have, x)
				default:
					if len(have) > 0 {
						i := r.IntN(len(have))
						a.drop(have[i])
						have = slices.Delete(have, i, i+1)
					}
				}
			}
			for _, x := range have {
				a.drop(x)
			}
			if len(a.used) != 0 {
				t.Errorf("left: %v", a.used)
			}
			for i := range pools {
				checkLowest(t, recs.taken("n"), &pools[i])
			}
			if t.Failed() {
				t.Fatalf("pools %+v, seed %d", pools, seed)
			}
		}
	}
}

// TestTermsFindContainers looks for containers by all that they are found by.
func TestTermsFindContainers(t *testing.T) {
	ns, other := NamespaceID{Dev: 4, Ino: 7}, NamespaceID{Dev: 4, Ino: 8}
	containers := []*Container{
		{ID: "a", Name: "run", Status: Running, UserNSID: ns},
		{ID: "b", Name: "trusted", Status: Running, UserNSID: ns, ShareAPI: true},
		{ID: "c", Name: "attached", Status: Running, Attached: true, UserNSID: ns, NetNSID: other,
			Endpoints: []*Endpoint{{ID: "e1", NetworkID: "n1", Key: "k"}, {ID: "e2", NetworkID: "n2", Key: "k"}}},
		{ID: "d", Name: "ended", Status: Exited, UserNSID: other, Endpoints: []*Endpoint{{ID: "e3", NetworkID: "n1"}}},
		{ID: "e", Name: "vm", Status: Running, Attached: true, VM: VMSocket{Kind: "stream", Path: "/vm"}},
		{ID: "f", Name: "sharing", Status: Created, NetworkMode: "container:a"},
	}
	m := &Model{records: newRecords()}
	find := func(term Term) (ids string) {
		for _, c := range m.Find(term) {
			ids += c.ID
		}
		return ids
	}
	for _, c := range containers {
		m.setContainer(c.ID, c)
	}
	for _, test := range []struct {
		term Term
		want string
	}{
		{NotEnded, "abcef"}, {ClosedAnywhere, "a"}, {AttachedClosedAnywhere, "c"}, {ClosedIn(ns), "a"},
		{ClosedIn(other), ""}, {AttachedClosedIn(ns), "c"}, {AttachedClosedIn(NamespaceID{}), ""}, {WithKey("k"), "c"},
		{WithKey(""), ""}, {WithVMPath("/vm"), "e"}, {InNetNS(other), "c"}, {InNetNS(NamespaceID{}), ""},
		{SharingWith("a"), "f"}, {OnNetwork("n1"), "cd"}, {OnNetwork("n2"), "c"}, {WithEndpoint("e2"), "c"},
	} {
		if got := find(test.term); got != test.want {
			t.Errorf("%+v: %q, want %q", test.term, got, test.want)
		}
	}
	for _, c := range containers {
		m.setContainer(c.ID, nil)
	}
	if n := m.postings.tree.Len(); n != 0 || len(m.addresses) != 0 {
		t.Errorf("%d terms of nothing, addresses %v", n, m.addresses)
	}
}

// TestOneMoreContainerDoesNotGrow measures what the model allocates for one more container with an address beside few
// and beside many: it must not grow with those that are there.
func TestOneMoreContainerDoesNotGrow(t *testing.T) {
	m := &Model{records: newRecords()}
	n := &Network{ID: newID(), Name: "lab", Driver: DriverBridge, EnableIPv4: true,
		Pools: []Pool{{Subnet: netip.MustParsePrefix("10.0.0.0/12"), Gateway: netip.MustParseAddr("10.0.0.1")}}}
	m.setNetwork(n.ID, n)
	one := func(i int) {
		c := &Container{ID: fmt.Sprintf("%064x", i), Name: fmt.Sprint("c", i), Status: Created}
		if err := m.nameFree(c.Name, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := m.addEndpoint(c, "lab", EndpointSpec{}); err != nil {
			t.Fatal(err)
		}
		m.setContainer(c.ID, c)
	}
	had := 0
	measure := func() float64 {
		return testing.AllocsPerRun(100, func() { one(had); had++ })
	}
	few := measure()
	for ; had < 5000; had++ {
		one(had)
	}
	if many := measure(); many > 2*few {
		t.Errorf("%.0f allocations beside 100, %.0f beside 5000", few, many)
	}
}

// TestChangesOnANetworkAreKnown changes containers of two networks, and asks who has changed.
func TestChangesOnANetworkAreKnown(t *testing.T) {
	m := &Model{records: newRecords()}
	for _, id := range []string{"n1", "n2"} {
		m.setNetwork(id, &Network{ID: id, Name: id})
	}
	set := func(id string, networks ...string) {
		c := &Container{ID: id, Name: id}
		for _, n := range networks {
			c.Endpoints = append(c.Endpoints, &Endpoint{ID: id + n, NetworkID: n})
		}
		m.setContainer(id, c)
	}
	changed := func(n string, since uint64) (string, uint64, bool) {
		ids, now, known := m.ChangedOn(n, since)
		slices.Sort(ids)
		return fmt.Sprint(ids), now, known
	}
	set("a", "n1")
	set("b", "n1", "n2")
	_, at1, _ := changed("n1", 0)
	_, at2, _ := changed("n2", 0)
	if ids, _, known := changed("n1", at1); ids != "[]" || !known {
		t.Errorf("nothing has changed, and it is %s, %v", ids, known)
	}
	set("b", "n2") // it leaves n1
	m.setContainer("a", nil)
	if ids, _, known := changed("n1", at1); ids != "[a b]" || !known {
		t.Errorf("on n1: %s, %v", ids, known)
	}
	if ids, _, known := changed("n2", at2); ids != "[b]" || !known {
		t.Errorf("on n2: %s, %v", ids, known)
	}
	for i := range 100 {
		set(fmt.Sprint(i), "n1")
	}
	if _, _, known := changed("n1", at1); known {
		t.Error("a hundred changes are known")
	}
	_, at1, _ = changed("n1", at1)
	if ids, _, known := changed("n2", at2); ids != "[b]" || !known {
		t.Errorf("on n2, after changes on n1: %s, %v", ids, known)
	}
	next := newRecords()
	next.setNetwork("n1", m.networks["n1"])
	next.forgetChanges(m.records)
	m.records = next
	if _, _, known := changed("n1", at1); known {
		t.Error("changes of records that were read anew are known")
	}
	if _, _, known := changed("nothing", 0); known {
		t.Error("changes of a network that is not there are known")
	}
}
