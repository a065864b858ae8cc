package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/table"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

// member is a host of a cluster in this process.
func member(t *testing.T, hub *tabletest.Hub, name string) *Cluster {
	t.Helper()
	return memberAt(t, hub, name, nil)
}

// memberAt is one with a clock of its own.
func memberAt(t *testing.T, hub *tabletest.Hub, name string, clock func() time.Time) *Cluster {
	t.Helper()
	return memberIn(t, hub, name, t.TempDir(), clock)
}

// memberIn is one with a state directory of its own.
func memberIn(t *testing.T, hub *tabletest.Hub, name, dir string, clock func() time.Time) *Cluster {
	t.Helper()
	return memberWith(t, name, dir, clock, func(id Identity) table.Backend { return hub.Join(id.ID, id.Incarnation) })
}

// memberWith is one with a backend of its own.
func memberWith(t *testing.T, name, dir string, clock func() time.Time, backend func(Identity) table.Backend) *Cluster {
	t.Helper()
	advertise, err := ParseAdvertise("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{
		Dir: dir, Name: name, Advertise: advertise, Clock: clock,
		Backend: func(id Identity, _ netip.Addr, _ gossip.Paths) (table.Backend, error) {
			return backend(id), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after 30 s", what)
		}
	}
}

func aNetwork(name, subnet string) *network.Network {
	p := netip.MustParsePrefix(subnet)
	return &network.Network{
		ID: strings.Repeat(fmt.Sprintf("%02x", name[0]), 32), Name: name, Driver: network.DriverOverlay,
		Scope: network.ScopeGlobal, EnableIPv4: true,
		Pools: []network.Pool{{Subnet: p, Gateway: p.Addr().Next(), Configured: true}},
	}
}

func TestNetworksAreClaimed(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := member(t, hub, "a"), member(t, hub, "b")
	n := aNetwork("ov", "10.0.0.0/24")
	if err := a.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	until(t, "b sees it", func() bool { _, is := b.Table().Network(n.ID); return is })
	same := aNetwork("ov", "10.0.1.0/24")
	same.ID = strings.Repeat("cd", 32)
	if err := b.CreateNetwork(t.Context(), same); errdefs.Class(err) != errdefs.ErrConflict {
		t.Errorf("a second network of that name: %v", err)
	}
	subnet := aNetwork("third", "10.0.0.0/24")
	if err := b.CreateNetwork(t.Context(), subnet); !errors.Is(err, overlay.ErrPoolTaken) {
		t.Errorf("a second network with that subnet: %v", err)
	}
	if _, taken := b.Table().Claimed(overlay.NameKey("third")); taken {
		t.Error("a network that was not made has its name")
	}
	for _, change := range []struct {
		by   *Cluster
		rule string
	}{{b, "default deny"}, {a, "default allow"}, {b, "default deny"}} {
		if err := change.by.UpdateNetwork(n, map[string]string{"usernet.policy": change.rule}); err != nil {
			t.Fatal(err)
		}
		until(t, "all hosts know the change", func() bool {
			for _, c := range []*Cluster{a, b} {
				if r, is := c.Table().Network(n.ID); !is || r.Options["usernet.policy"] != change.rule {
					return false
				}
			}
			return true
		})
	}
	b.SetContainer(strings.Repeat("ee", 32), []overlay.Endpoint{{
		Network: n.ID, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}, MAC: overlay.MAC{2}, EndpointID: n.ID,
		Container: strings.Repeat("ee", 32), Name: "t2", Running: true,
	}})
	until(t, "a sees the container", func() bool { return len(a.Table().Endpoints(n.ID)) == 1 })
	if err := a.RemoveNetwork(t.Context(), n.ID); errdefs.Class(err) != errdefs.ErrForbidden || !strings.Contains(err.Error(), `name:"t2"`) {
		t.Errorf("removing a network with a container of another host: %v", err)
	}
	b.SetContainer(strings.Repeat("ee", 32), nil)
	until(t, "a sees that it is gone", func() bool { return len(a.Table().Endpoints(n.ID)) == 0 })
	if err := a.RemoveNetwork(t.Context(), n.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "nothing is left of it", func() bool {
		for key := range hub.Rows() {
			if k, err := overlay.ParseKey(key); err == nil && k.Kind != overlay.KindAlive && k.Kind !=
				overlay.KindHost {
				return false
			}
		}
		return true
	})
}

// claims is a backend that notes until when each claim of a number on the wire has time, and says that the first is
// another host's.
type claims struct {
	table.Backend
	mu    sync.Mutex // guards until
	until []time.Time
}

func (c *claims) Claim(ctx context.Context, row table.Row) error {
	if k, err := overlay.ParseKey(row.Key); err == nil && k.Kind == overlay.KindVNI {
		c.mu.Lock()
		defer c.mu.Unlock()
		end, _ := ctx.Deadline()
		if c.until = append(c.until, end); len(c.until) == 1 {
			row.Owner = overlay.NewHostID()
			return &table.TakenError{Row: row}
		}
	}
	return c.Backend.Claim(ctx, row)
}

// TestASecondNumberHasItsOwnTime: without a store each claim waits for two seconds of the three that it has.
func TestASecondNumberHasItsOwnTime(t *testing.T) {
	hub, noted := tabletest.NewHub(), &claims{}
	c := memberWith(t, "a", t.TempDir(), nil, func(id Identity) table.Backend {
		noted.Backend = hub.Join(id.ID, id.Incarnation)
		return noted
	})
	if err := c.CreateNetwork(t.Context(), aNetwork("ov", "10.0.0.0/24")); err != nil {
		t.Fatal(err)
	}
	if len(noted.until) != 2 || !noted.until[1].After(noted.until[0]) {
		t.Errorf("two numbers were claimed until %v", noted.until)
	}
}

func TestAddressesAreOfOwnBlocks(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := member(t, hub, "a"), member(t, hub, "b")
	n := aNetwork("ov", "10.0.0.0/24")
	if err := a.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	until(t, "both have a block", func() bool {
		return a.hasBlock(a.Table(), n.ID, n.Pools[0].Subnet) && b.hasBlock(b.Table(), n.ID, n.Pools[0].Subnet)
	})
	hub.Away(a.Identity().ID, errors.New("away")) // addresses of the own block need no store
	used := map[netip.Addr]string{}
	reserve := func(c *Cluster, want netip.Addr, owner string) error {
		addr, err := c.Reserve(t.Context(), n, n.Pools[0], want, owner)
		if err != nil {
			return err
		}
		if other := used[addr]; other != "" || n.Pools[0].Reserved(addr) || !n.Pools[0].Subnet.Contains(addr) {
			t.Errorf("%s for %s, which %q has", addr, owner, other)
		}
		used[addr] = owner
		return nil
	}
	for i := range 5 {
		for _, c := range []*Cluster{a, b} {
			if err := reserve(c, netip.Addr{}, fmt.Sprintf("%064x", len(used)+1)); err != nil {
				t.Fatalf("address %d: %v", i, err)
			}
		}
	}
	if err := reserve(a, netip.MustParseAddr("10.0.0.200"), strings.Repeat("f", 64)); errdefs.Class(err) !=
		errdefs.ErrUnavailable {
		t.Errorf("an address outside the own block, without a store: %v", err)
	}
	if err := reserve(b, netip.MustParseAddr("10.0.0.200"), strings.Repeat("e", 64)); err != nil {
		t.Errorf("the same with a store: %v", err)
	}
	hub.Back(a.Identity().ID)
	until(t, "a knows of it", func() bool {
		_, is := a.Table().EndpointAt(n.ID, netip.MustParseAddr("10.0.0.200"))
		return is
	})
	if err := reserve(a, netip.MustParseAddr("10.0.0.200"), strings.Repeat("f", 64)); errdefs.Class(err) !=
		errdefs.ErrForbidden {
		t.Errorf("an address of another host's: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	for _, test := range []struct{ subnet, third string }{
		{"10.0.0.0/16", "10.0.0.128/26"}, {"10.0.0.0/24", "10.0.0.32/28"}, {"10.0.0.0/30", "10.0.0.2/32"},
		{"fd00::/64", "fd00::2:0/112"},
	} {
		p := netip.MustParsePrefix(test.subnet)
		if got := nthBlock(p, blockBits(p), 2); got.String() != test.third {
			t.Errorf("the third block of %s is %s, want %s", p, got, test.third)
		}
	}
}

func TestIdentityLasts(t *testing.T) {
	dir := t.TempDir()
	first, err := loadIdentity(dir, time.UnixMilli(1000))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(identityPath(dir)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file with the key: %v, %v", st, err)
	}
	second, err := loadIdentity(dir, time.UnixMilli(10)) // the clock went back
	if err != nil || second.ID != first.ID || second.PublicKey() != first.PublicKey() || second.Incarnation !=
		first.Incarnation+1 {
		t.Errorf("%+v after %+v: %v", second, first, err)
	}
}

// TestClocksOfHostsDiffer has one host a day ahead and another a day behind. They reach each other and share a network
// as others do, both say whose clock it is, and a claim that is known goes before an earlier one by the clock.
func TestClocksOfHostsDiffer(t *testing.T) {
	hub := tabletest.NewHub()
	shifted := func(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }
	a := memberAt(t, hub, "a", shifted(24*time.Hour))
	b := memberAt(t, hub, "b", shifted(-24*time.Hour))
	n := aNetwork("ov", "10.0.0.0/24")
	if err := a.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	until(t, "b sees it", func() bool { _, is := b.Table().Network(n.ID); return is })
	same := aNetwork("ov", "10.0.1.0/24")
	same.ID = strings.Repeat("cd", 32)
	if err := b.CreateNetwork(t.Context(), same); errdefs.Class(err) != errdefs.ErrConflict {
		t.Errorf("a name that another host has, claimed by an earlier clock: %v", err)
	}
	given := map[netip.Addr]bool{}
	for _, c := range []*Cluster{a, b} {
		addr, err := c.Reserve(t.Context(), n, n.Pools[0], netip.Addr{}, c.cfg.Name)
		if err != nil || given[addr] {
			t.Errorf("host %s got %v, %v", c.cfg.Name, addr, err)
		}
		given[addr] = true
	}
	for c, want := range map[*Cluster]struct {
		note string
		skew time.Duration
	}{
		a: {"host b is 48h0m0s behind", 48 * time.Hour},
		b: {"host a is 48h0m0s ahead of", -48 * time.Hour},
	} {
		until(t, "host "+c.cfg.Name+" says that the other's clock differs", func() bool {
			s := c.Status()
			return strings.Contains(strings.Join(s.Notes, "\n"), want.note) &&
				(s.Skew-want.skew).Abs() < clockTolerance
		})
		c.Table().Expire(t.Context())
		if hosts := c.Table().Hosts(); len(hosts) != 2 {
			t.Errorf("host %s knows %d hosts", c.cfg.Name, len(hosts))
		}
	}
}
