package network

import (
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/usernet/usernet/internal/errdefs"
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
		{"a /29", nil, nil, []Pool{pool("10.1.0.0/29", "", "")}, "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6",
			"IPv4"},
		{"a /30", nil, nil, []Pool{pool("10.1.0.0/30", "", "")}, "10.1.0.2", "IPv4"},
		{"a /30 with its gateway last", nil, nil, []Pool{pool("10.1.0.0/30", "", "10.1.0.2")}, "10.1.0.1", "IPv4"},
		{"an ip-range at the end", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.252/30", "")},
			"10.1.0.252 10.1.0.253 10.1.0.254", "IPv4"},
		{"an ip-range at the beginning", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.0/30", "")}, "10.1.0.2 10.1.0.3",
			"IPv4"},
		{"an ip-range of one address", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.7/32", "")}, "10.1.0.7", "IPv4"},
		{"the gateway inside the ip-range", nil, nil, []Pool{pool("10.1.0.0/24", "10.1.0.8/30", "10.1.0.9")},
			"10.1.0.8 10.1.0.10 10.1.0.11", "IPv4"},
		{"auxiliary addresses", nil, nil, []Pool{pool("10.1.0.0/29", "", "", "10.1.0.2", "10.1.0.4")},
			"10.1.0.3 10.1.0.5 10.1.0.6", "IPv4"},
		{"two IPv4 subnets, one after the other", nil, nil, []Pool{pool("10.1.0.0/30", "", ""), pool("10.2.0.0/30", "",
			"")}, "10.1.0.2 10.2.0.2", "IPv4"},
		{"IPv6 alone", &off, &on, []Pool{pool("fd01::/126", "", "")}, "fd01::2 fd01::3", "IPv6"},
		{"IPv6 alone with an ip-range", &off, &on, []Pool{pool("fd01::/64", "fd01::ff00/127", "")},
			"fd01::ff00 fd01::ff01", "IPv6"},
		{"both, of which IPv6 ends first", nil, &on, []Pool{pool("10.1.0.0/24", "", ""), pool("fd01::/126", "", "")},
			"10.1.0.2+fd01::2 10.1.0.3+fd01::3", "IPv6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := open(t, filepath.Join(t.TempDir(), "db"))
			defer m.Close()
			n, _, err := m.CreateNetwork(
				NetworkSpec{Name: "mynet", EnableIPv4: test.ipv4, EnableIPv6: test.ipv6, Pools: test.pools})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				c, _, err := m.CreateContainer(ContainerSpec{NetworkMode: "mynet"})
				if err != nil {
					want := "no available " + test.family + " addresses on this network's address pools: mynet (" +
						n.ID + ")"
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
	on, off := true, false
	for _, test := range []struct {
		want string
		spec NetworkSpec
	}{
		{"it has no room for a gateway and a container", NetworkSpec{Pools: []Pool{pool("10.1.0.0/31", "", "")}}},
		{"it has no room for a gateway and a container", NetworkSpec{Pools: []Pool{pool("10.1.0.0/32", "", "")}}},
		{"it has no room for a gateway and a container", NetworkSpec{EnableIPv6: &on,
			Pools: []Pool{pool("fd01::/127", "", "")}}},
		{"it should be 10.1.0.0/24", NetworkSpec{Pools: []Pool{pool("10.1.0.1/24", "", "")}}},
		{"invalid ip-range 10.2.0.0/25: parent subnet 10.1.0.0/24 doesn't contain ip-range",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "10.2.0.0/25", "")}}},
		{"invalid ip-range 10.1.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "10.1.0.0/16", "")}}},
		{"invalid ip-range 10.1.0.1/25: it should be 10.1.0.0/25",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "10.1.0.1/25", "")}}},
		{"invalid ip-range fd01::/80: parent subnet is an IPv4 block",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "fd01::/80", "")}}},
		{"invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "10.2.0.1")}}},
		{"invalid auxiliary address 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "", "10.2.0.1")}}},
		{"invalid network config:\ninvalid subnet 10.1.0.1/24: it should be 10.1.0.0/24\ninvalid gateway fd01::1: " +
			"parent subnet is an IPv4 block\ninvalid subnet 10.2.0.0/32: it has",
			NetworkSpec{Pools: []Pool{pool("10.1.0.1/24", "", "fd01::1"), pool("10.2.0.0/32", "", "")}}},
		{"failed to allocate gateway (10.1.0.255): Address already in use",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "10.1.0.255")}}},
		{"failed to allocate gateway (10.1.0.0): Address already in use",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "10.1.0.0")}}},
		{"failed to allocate gateway (fd01::): Address already in use", NetworkSpec{EnableIPv6: &on,
			Pools: []Pool{pool("fd01::/64", "", "fd01::")}}},
		{"failed to allocate secondary ip address (10.1.0.5:10.1.0.5): Address already in use",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "10.1.0.5", "10.1.0.5")}}},
		{"failed to allocate secondary ip address (10.1.0.1:10.1.0.1): Address already in use",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "", "10.1.0.1")}}},
		{"failed to allocate secondary ip address (10.1.0.255:10.1.0.255): Address already in use",
			NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", "", "10.1.0.255")}}},
		{"need a subnet", NetworkSpec{Pools: []Pool{{Gateway: netip.MustParseAddr("10.1.0.1")}}}},
		{"Pool overlaps with other one on this address space", NetworkSpec{Pools: []Pool{pool("10.1.0.0/24", "", ""),
			pool("10.1.0.128/25", "", "")}}},
		{"IPv4 or IPv6 must be enabled", NetworkSpec{EnableIPv4: &off}},
	} {
		test.spec.Name = "x"
		_, _, err := m.CreateNetwork(test.spec)
		if !errdefs.Classified(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %s", test.spec, err, test.want)
		}
	}
}

// TestFamiliesOfNetworks has what decides which families a network has, and the order of its subnets.
func TestFamiliesOfNetworks(t *testing.T) {
	on, off := true, false
	v4, v6 := pool("10.1.0.0/24", "", ""), pool("fd01::/64", "", "")
	for _, test := range []struct {
		name    string
		spec    NetworkSpec
		want    string // subnets
		warning string
	}{
		{"IPv4 subnets first", NetworkSpec{EnableIPv6: &on, Pools: []Pool{v6, v4}}, "10.1.0.0/24 fd01::/64", ""},
		{"an IPv6 subnet without IPv6", NetworkSpec{Pools: []Pool{v6, v4}}, "10.1.0.0/24",
			"subnet fd01::/64 is ignored: the network has no IPv6"},
		{"an IPv6 subnet, IPv6 off", NetworkSpec{EnableIPv6: &off, Pools: []Pool{v4, v6}}, "10.1.0.0/24",
			"subnet fd01::/64 is ignored"},
		{"an IPv4 subnet, IPv4 off", NetworkSpec{EnableIPv4: &off, EnableIPv6: &on, Pools: []Pool{v4, v6}}, "fd01::/64",
			"subnet 10.1.0.0/24 is ignored: IPv4 is switched off"},
		{"an IPv4-mapped subnet", NetworkSpec{Pools: []Pool{pool("::ffff:10.1.0.0/120", "::ffff:10.1.0.128/121",
			"::ffff:10.1.0.9", "::ffff:10.1.0.8")}}, "10.1.0.0/24", ""},
		{"IPv6 by a driver option", NetworkSpec{Options: map[string]string{"com.docker.network.enable_ipv6": "true"},
			Pools: []Pool{v6, v4}}, "10.1.0.0/24 fd01::/64", ""},
		{"IPv4 off by a driver option", NetworkSpec{
			EnableIPv6: &on,
			Options:    map[string]string{"com.docker.network.enable_ipv4": "0"},
			Pools:      []Pool{v6},
		}, "fd01::/64", ""},
		{"a field goes before the driver option", NetworkSpec{
			EnableIPv6: &off,
			Options:    map[string]string{"com.docker.network.enable_ipv6": "true"},
			Pools:      []Pool{v4},
		}, "10.1.0.0/24",
			""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := open(t, filepath.Join(t.TempDir(), "db"))
			defer m.Close()
			test.spec.Name = "mynet"
			n, warning, err := m.CreateNetwork(test.spec)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range n.Pools {
				got = append(got, p.Subnet.String())
			}
			if strings.Join(got, " ") != test.want || !strings.HasPrefix(warning, test.warning) || warning != "" &&
				test.warning == "" {
				t.Errorf("subnets %v with warning %q, want %s with %q", got, warning, test.want, test.warning)
			}
			if n.EnableIPv4 != strings.Contains(test.want, "10.") || n.EnableIPv6 != strings.Contains(test.want, "fd") {
				t.Errorf("IPv4 %v, IPv6 %v", n.EnableIPv4, n.EnableIPv6)
			}
			if !n.EnableIPv6 {
				if _, _, err := m.CreateNetwork(NetworkSpec{
					Name:       "next",
					EnableIPv6: &on,
					Pools:      []Pool{v6},
				}); err != nil {
					t.Errorf("the subnet that was ignored is reserved: %v", err)
				}
			}
		})
	}
}

func TestDefaultPoolsKeepAwayFromTheHost(t *testing.T) {
	host := []netip.Prefix{netip.MustParsePrefix("172.18.3.0/24"), netip.MustParsePrefix("172.16.0.0/15")}
	m, err := openAt(filepath.Join(t.TempDir(), "db"), Options{HostRoutes: func() []netip.Prefix { return host }})
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
			t.Errorf("%+v with %s: %d in use and %d available, want %d and %d", test.pool, test.used, inUse, available,
				test.inUse, test.available)
		}
	}
}

// TestManyAtOnce creates, connects and removes from many goroutines; no address, MAC or name is given twice.
func TestManyAtOnce(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "db"))
	defer m.Close()
	if _, _, err := m.CreateNetwork(NetworkSpec{Name: "mynet",
		Pools: []Pool{pool("10.1.0.0/24", "", "")}}); err != nil {
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
