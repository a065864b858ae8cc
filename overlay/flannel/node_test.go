package flannel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/memory"
)

const patience = time.Minute

func waitFor(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

// A site is a store with a flannel network.
type site struct {
	*memory.Server
	t     testing.TB
	admin *memory.Client
}

func newSite(t testing.TB, config string) *site {
	s := &site{memory.New(), t, nil}
	s.admin = s.Open()
	if config != "" {
		s.put("config", config)
	}
	return s
}

func (s *site) put(key, value string) {
	s.t.Helper()
	if err := s.admin.Put(context.Background(), key, []byte(value), kv.Whatever, nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) remove(key string) {
	s.t.Helper()
	if err := s.admin.Delete(context.Background(), key, kv.Whatever); err != nil {
		s.t.Fatal(err)
	}
}

// node opens one for the length of a test, at an address.
func (s *site) node(dir, address string) (*Node, *memory.Client) {
	s.t.Helper()
	advertise, err := cluster.ParseAdvertise(address)
	if err != nil {
		s.t.Fatal(err)
	}
	client := s.Open()
	n, err := Open(Options{
		Dir: dir, Open: func() (kv.Store, error) { return client, nil }, URL: "memory", Advertise: advertise,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = n.Close() }) // again, where the test has
	return n, client
}

func (s *site) subnetOf(n *Node) netip.Prefix {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, subnet, err := n.Lease(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return subnet
}

// has waits until the store has a subnet's lease with a text in it.
func (s *site) has(subnet netip.Prefix, text string) {
	s.t.Helper()
	waitFor(s.t, func() error {
		if got := s.Keys()[subnetKey(subnet)]; !strings.Contains(got, text) {
			return fmt.Errorf("the lease of %v is %q, without %q", subnet, got, text)
		}
		return nil
	})
}

// run makes a network run on a node's lease, for the length of a test.
func run(t testing.TB, n *Node, subnet netip.Prefix) {
	t.Helper()
	e, err := engine.New(engine.Config{
		Name: "fl", Gateways: []netip.Prefix{netip.PrefixFrom(subnet.Addr().Next(), 16)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	if err := n.Join(Network{ID: "id", Name: "fl", Subnet: subnet}, e); err != nil {
		t.Fatal(err)
	}
}

// freePort is a UDP port that nobody has.
func freePort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp", nil) // both families
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func TestNodesTakeLeasesAndKeepThem(t *testing.T) {
	s := newSite(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	dir := t.TempDir()
	a, _ := s.node(dir, "192.0.2.1")
	b, _ := s.node(t.TempDir(), "192.0.2.2")
	first, second := s.subnetOf(a), s.subnetOf(b)
	if first == second || first.Bits() != 24 || first.Addr() == netip.MustParseAddr("10.5.0.0") {
		t.Fatalf("subnets %v and %v", first, second)
	}
	s.has(first, `"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"`)
	lease := s.Keys()[subnetKey(first)]

	s.remove(subnetKey(first))
	s.has(first, lease)

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s.has(first, lease) // it outlives the daemon
	a, _ = s.node(dir, "192.0.2.3")
	if got := s.subnetOf(a); got != first {
		t.Errorf("after a restart the subnet is %v, and was %v", got, first)
	}
	s.has(first, "192.0.2.3")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// Without its state it is known by its address.
	a, _ = s.node(t.TempDir(), "192.0.2.3")
	if got := s.subnetOf(a); got != first {
		t.Errorf("without its state the subnet is %v, and was %v", got, first)
	}
}

func TestANodeGoesOnWithoutItsStore(t *testing.T) {
	s := newSite(t, fmt.Sprintf(`{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":%d}}`, freePort(t)))
	s.put("subnets/10.5.200.0-24", `{"PublicIP":"192.0.2.9"}`)
	dir := t.TempDir()
	a, _ := s.node(dir, "192.0.2.1")
	subnet := s.subnetOf(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	advertise, _ := cluster.ParseAdvertise("192.0.2.1")
	client := s.Open()
	client.Set(memory.Fault{Err: errors.New("no route to host")})
	a, err := Open(Options{Dir: dir, Open: func() (kv.Store, error) { return client, nil }, Advertise: advertise})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if got := s.subnetOf(a); got != subnet {
		t.Errorf("without the store the subnet is %v, and was %v", got, subnet)
	}
	run(t, a, subnet)
	if st := a.Status("id"); st == nil || st.Nodes["10.5.200.0/24"] != "192.0.2.9" || st.Leased {
		t.Errorf("without the store the node is %+v", st)
	}
	waitFor(t, func() error {
		if w := strings.Join(a.Warnings(), "\n"); !strings.Contains(w, "no route to host") {
			return fmt.Errorf("what is wrong is not said: %q", w)
		}
		return nil
	})

	// Meanwhile another node got the subnet: containers have its addresses, so it is not given up.
	s.put(subnetKey(subnet), `{"PublicIP":"192.0.2.7"}`)
	client.Set(memory.Fault{})
	waitFor(t, func() error {
		if w := strings.Join(a.Warnings(), "\n"); !strings.Contains(w, "192.0.2.7") {
			return fmt.Errorf("a subnet that another node has is not said: %q", w)
		}
		return nil
	})
	s.remove(subnetKey(subnet))
	s.has(subnet, "192.0.2.1")
	waitFor(t, func() error {
		if w := a.Warnings(); len(w) > 0 || !a.Status("id").Leased {
			return fmt.Errorf("all is well again, and it says %q", w)
		}
		return nil
	})
}

func TestANodeWithoutContainersTakesAnotherSubnet(t *testing.T) {
	s := newSite(t, `{"Network":"10.5.0.0/16"}`)
	dir := t.TempDir()
	a, _ := s.node(dir, "192.0.2.1")
	subnet := s.subnetOf(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	s.put(subnetKey(subnet), `{"PublicIP":"192.0.2.7"}`)
	a, _ = s.node(dir, "192.0.2.1")
	waitFor(t, func() error {
		if got := s.subnetOf(a); got == subnet {
			return fmt.Errorf("subnet %v is another node's", got)
		}
		return nil
	})
	s.has(s.subnetOf(a), "192.0.2.1")
}

func TestNodesComeAndGo(t *testing.T) {
	s := newSite(t, fmt.Sprintf(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":%d}}`, freePort(t)))
	a, _ := s.node(t.TempDir(), "192.0.2.1")
	run(t, a, s.subnetOf(a))
	knows := func(want string) {
		t.Helper()
		waitFor(t, func() error {
			if got := fmt.Sprint(a.Status("id").Nodes); got != want {
				return fmt.Errorf("the nodes are %s, want %s", got, want)
			}
			return nil
		})
	}
	put := func(key, public, kind string) {
		s.put(key, fmt.Sprintf(`{"PublicIP":%q,"BackendType":%q,"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}`,
			public, kind))
	}
	knows("map[]")
	subnet := "subnets/10.5.255.0-24"
	if s.subnetOf(a) == netip.MustParsePrefix("10.5.255.0/24") {
		subnet = "subnets/10.5.254.0-24"
	}
	prefix := strings.Replace(strings.TrimPrefix(subnet, "subnets/"), "-", "/", 1)
	put(subnet, "192.0.2.2", "vxlan")
	knows("map[" + prefix + ":192.0.2.2]")
	put(subnet, "192.0.2.3", "vxlan")
	knows("map[" + prefix + ":192.0.2.3]")
	put(subnet, "192.0.2.3", "host-gw") // which this host cannot reach
	knows("map[]")
	put(subnet, "192.0.2.3", "vxlan")
	put("subnets/10.9.0.0-24", "192.0.2.4", "vxlan") // of another network
	put("subnets/10.0.0.0-8", "192.0.2.5", "vxlan")  // more than the network
	s.put("subnets/10.5.253.0-24", `nonsense`)
	knows("map[" + prefix + ":192.0.2.3]")
	s.put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`)
	waitFor(t, func() error {
		if w := strings.Join(a.Warnings(), "\n"); !strings.Contains(w, "host-gw") {
			return fmt.Errorf("a configuration that cannot be is not said: %q", w)
		}
		return nil
	})
	knows("map[" + prefix + ":192.0.2.3]")
	s.remove(subnet)
	knows("map[]")
}

// TestANewNetworkTakesTheConfigurationOfNow has the configuration refused, deleted and changed after the host became a
// node, seen by its watch and not: a new network is refused as on a host that never was one.
func TestANewNetworkTakesTheConfigurationOfNow(t *testing.T) {
	const good = `{"Network":"10.5.0.0/16"}`
	lease := func(n *Node) (netip.Prefix, string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, subnet, err := n.LeaseNow(ctx)
		return subnet, fmt.Sprint(err)
	}
	for name, change := range map[string]func(*site){
		"refused":   func(s *site) { s.put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`) },
		"no config": func(s *site) { s.remove("config") },
	} {
		s := newSite(t, good)
		dir := t.TempDir()
		a, _ := s.node(dir, "192.0.2.1")
		subnet, text := lease(a)
		if !subnet.IsValid() {
			t.Fatal(text)
		}
		change(s)
		fresh, _ := s.node(t.TempDir(), "192.0.2.2")
		_, want := lease(fresh)
		if !strings.Contains(want, "no lease") {
			t.Errorf("%s: a fresh host: %s", name, want)
		}
		if _, got := lease(a); got != want {
			t.Errorf("%s: a host that was a node: %s, want %s", name, got, want)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		again, client := s.node(dir, "192.0.2.1")
		if _, got := lease(again); got != want {
			t.Errorf("%s: after a restart: %s, want %s", name, got, want)
		}
		client.Set(memory.Fault{Err: errors.New("no route to host")})
		if got, text := lease(again); got != subnet {
			t.Errorf("%s: without the store: %v, %s; want %v", name, got, text, subnet)
		}
		client.Set(memory.Fault{})
		s.put("config", `{"Network":"10.6.0.0/16"}`)
		if got, text := lease(again); !netip.MustParsePrefix("10.6.0.0/16").Contains(got.Addr()) {
			t.Errorf("%s: after another configuration: %v, %s", name, got, text)
		}
	}
}

func TestALeaseThatCannotBe(t *testing.T) {
	for config, want := range map[string]string{
		"": "no configuration",
		`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}`:                "wireguard takes privileges",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.1.0"}`: "all subnets",
	} {
		s := newSite(t, config)
		s.put("subnets/10.5.1.0-24", `{"PublicIP":"192.0.2.9"}`)
		n, _ := s.node(t.TempDir(), "192.0.2.1")
		waitFor(t, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, subnet, err := n.Lease(ctx); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%s: subnet %v, %v, want an error with %q", config, subnet, err, want)
			}
			return nil
		})
	}
}
