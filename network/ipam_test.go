package network

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func pool(subnet, rng, gateway string, aux ...string) Pool {
	p := Pool{Subnet: netip.MustParsePrefix(subnet)}
	if rng != "" {
		p.Range = netip.MustParsePrefix(rng)
	}
	if gateway != "" {
		p.Gateway = netip.MustParseAddr(gateway)
	}
	for _, a := range aux {
		if p.Aux == nil {
			p.Aux = map[string]netip.Addr{}
		}
		p.Aux[a] = netip.MustParseAddr(a)
	}
	return p
}

// TestPoolsAreHandedOut fills networks up to their last address.
func TestPoolsAreHandedOut(t *testing.T) {
	on, off := true, false
	for _, test := range []struct {
		name   string
		ipv4   *bool
		ipv6   *bool
		pools  []Pool
		want   string // addresses in order
		family string
	}{
		{"a /29", nil, nil, []Pool{pool("10.1.0.0/29", "", "")}, "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6", "IPv4"},
		{"a /30", nil, nil, []Pool{pool("10.1.0.0/30", "", "")}, "10.1.0.2", "IPv4"},
		{"a /30 with its gateway last", nil, nil, []Pool{pool("10.1.0.0/30", "", "10.1.0.2")}, "10.1.0.1", "IPv4"},
		{"an ip-range at the end", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.252/30", "")}, "10.1.0.252 10.1.0.253 10.1.0.254", "IPv4"},
		{"an ip-range at the beginning", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.0/30", "")}, "10.1.0.2 10.1.0.3", "IPv4"},
		{"an ip-range of one address", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.7/32", "")}, "10.1.0.7", "IPv4"},
		{"the gateway inside the ip-range", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.8/30", "10.1.0.9")}, "10.1.0.8 10.1.0.10 10.1.0.11", "IPv4"},
		{"auxiliary addresses", nil, nil, []Pool{pool("10.1.0.0/29", "", "", "10.1.0.2", "10.1.0.4")}, "10.1.0.3 10.1.0.5 10.1.0.6", "IPv4"},
		{"two IPv4 subnets, one after the other", nil, nil, []Pool{pool("10.1.0.0/30", "", ""), pool("10.2.0.0/30", "", "")}, "10.1.0.2 10.2.0.2", "IPv4"},
		{"IPv6 alone", &off, &on, []Pool{pool("fd01::/126", "", "")}, "fd01::2 fd01::3", "IPv6"},
		{"IPv6 alone with an ip-range", &off, &on, []Pool{pool("fd01::/64", "fd01::ff00/127", "")}, "fd01::ff00 fd01::ff01", "IPv6"},
		{"both, of which IPv6 ends first", nil, nil, []Pool{pool("10.1.0.0/24", "", ""), pool("fd01::/126", "", "")}, "10.1.0.2+fd01::2 10.1.0.3+fd01::3", "IPv6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := open(t, filepath.Join(t.TempDir(), "db"))
			defer m.Close()
			n, _, err := m.CreateNetwork(NetworkSpec{Name: "mynet", EnableIPv4: test.ipv4, EnableIPv6: test.ipv6, Pools: test.pools})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				c, _, err := m.CreateContainer(ContainerSpec{NetworkMode: "mynet"})
				if err != nil {
					want := "no available " + test.family + " addresses on this network's address pools: mynet (" + n.ID + ")"
					if err.Error() != want {
						t.Errorf("%v, want %s", err, want)
					}
					break
				}
				var list []string
				for _, p := range []netip.Prefix{c.Endpoints[0].IPv4, c.Endpoints[0].IPv6} {
					if p.IsValid() {
						list = append(list, p.Addr().String())
					}
				}
				got = append(got, strings.Join(list, "+"))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("handed out: %v, want %s", got, test.want)
			}
			if strings.Contains(test.want, "10.") != n.EnableIPv4 || strings.Contains(test.want, "fd") != n.EnableIPv6 {
				t.Errorf("IPv4 %v, IPv6 %v", n.EnableIPv4, n.EnableIPv6)
			}
		})
	}
}

func TestPoolsThatAreRefused(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	off := false
	for _, test := range []struct {
		want string
		spec NetworkSpec
	}{
		{"it has no room for a gateway and a container", NetworkSpec{Pools: []Pool{pool("10.1.0.0/31", "", "")}}},
		{"it has no room for a gateway and a container", NetworkSpec{Pools: []Pool{pool("10.1.0.0/32", "", "")}}},
		{"it has no room for a gateway and a container", NetworkSpec{Pools: []Pool{pool("fd01::/127", "", "")}}},
		{"it should be 10.1.0.0/24", NetworkSpec{Pools: []Pool{pool("10.1.0.1/24", "", "")}}},
		{"does not lie in subnet", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "10.2.0.0/25", "")}}},
		{"does not lie in subnet", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "10.1.0.0/16", "")}}},
		{"no matching subnet for gateway 10.2.0.1", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "10.2.0.1")}}},
		{"no matching subnet for aux-address", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "", "10.2.0.1")}}},
		{"need a subnet", NetworkSpec{Pools: []Pool{{Gateway: netip.MustParseAddr("10.1.0.1")}}}},
		{"Pool overlaps with other one on this address space", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", ""), pool("10.1.0.128/25", "", "")}}},
		{"IPv4 or IPv6 must be enabled", NetworkSpec{EnableIPv4: &off}},
		{"switched off", NetworkSpec{EnableIPv6: &off, Pools: []Pool{pool("fd01::/64", "", "")}}},
	} {
		test.spec.Name = "x"
		_, _, err := m.CreateNetwork(test.spec)
		if e := (*Error)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %s", test.spec, err, test.want)
		}
	}
}

func TestDefaultPoolsKeepAwayFromTheHost(t *testing.T) {
	host := []netip.Prefix{netip.MustParsePrefix("172.18.3.0/24"), netip.MustParsePrefix("172.16.0.0/15")}
	m, err := Open(filepath.Join(t.TempDir(), "db"), Options{HostRoutes: func() []netip.Prefix { return host }})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	b, err := m.Network(BridgeName)
	if err != nil || b.Pools[0].Subnet.String() != "172.19.0.0/16" {
		t.Errorf("the default bridge has %v, %v", b.Pools, err)
	}
	last := ""
	for i := 0; ; i++ {
		n, _, err := m.CreateNetwork(NetworkSpec{Name: "n" + strings.Repeat("x", i)})
		if err != nil {
			if !strings.Contains(err.Error(), "all predefined address pools have been fully subnetted") {
				t.Error(err)
			}
			break
		}
		last = n.Pools[0].Subnet.String()
	}
	if last != "192.168.240.0/20" {
		t.Errorf("the last default pool is %s", last)
	}
}

func TestUsageOfPools(t *testing.T) {
	for _, test := range []struct {
		pool             Pool
		used             string
		inUse, available uint64
	}{
		{pool("172.17.0.0/16", "", "172.17.0.1"), "", 3, 65533},
		{pool("10.1.0.0/24", "", "10.1.0.1"), "10.1.0.2 10.1.0.3", 5, 251},
		{pool("10.1.0.0/24", "", "10.1.0.1"), "10.2.0.2", 3, 253}, // another subnet's
		{pool("10.1.0.0/24", "10.1.0.128/30", "10.1.0.1"), "10.1.0.2 10.1.0.128", 5, 3},
		{pool("10.1.0.0/24", "", "10.1.0.1", "10.1.0.9"), "10.1.0.2", 5, 251},
		{pool("fd01::/64", "", "fd01::1"), "fd01::2", 3, 1<<64 - 1},
		{pool("fd01::/96", "", "fd01::1"), "fd01::2", 3, 1<<32 - 3},
	} {
		var used []netip.Addr
		for _, s := range strings.Fields(test.used) {
			used = append(used, netip.MustParseAddr(s))
		}
		if inUse, available := test.pool.Usage(used); inUse != test.inUse || available != test.available {
			t.Errorf("%+v with %s: %d in use and %d available, want %d and %d", test.pool, test.used, inUse, available, test.inUse, test.available)
		}
	}
}

// TestManyAtOnce creates, connects and removes from many goroutines; no address, MAC or name is given twice.
func TestManyAtOnce(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	if _, _, err := m.CreateNetwork(NetworkSpec{Name: "mynet", Pools: []Pool{pool("10.1.0.0/24", "", "")}}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 6 {
				c, _, err := m.CreateContainer(ContainerSpec{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, _, err := m.Connect("mynet", c.ID, EndpointSpec{}); err != nil {
					t.Error(err)
				}
				if (i+j)%2 == 0 {
					if err := m.RemoveContainer(c.ID); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for _, c := range m.Containers() {
		keys := []string{"name " + c.Name}
		for _, e := range c.Endpoints {
			keys = append(keys, e.IPv4.String(), e.Network+e.MAC.String())
		}
		for _, k := range keys {
			if seen[k] != "" {
				t.Errorf("%s and %s both have %s", seen[k], c.ID, k)
			}
			seen[k] = c.ID
		}
	}
	if n := len(m.Containers()); n != 24 {
		t.Errorf("%d containers are left, want 24", n)
	}
}
