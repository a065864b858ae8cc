package names

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/network"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// town is a table of three networks: one and two resolve names, bridge does not.
//
//	web   one 10.1.0.2 fd01::2, two 10.2.0.2   exposes 80/tcp
//	db    one 10.1.0.3, alias store
//	db2   one 10.1.0.4, alias store
//	app   two 10.2.0.5, link web:front, gone:lost
//	old   bridge 172.17.0.2
//	new   bridge 172.17.0.3, link old:ancient in its hosts file
func town() *Table {
	t := NewTable()
	t.SetNetwork(
		Network{
			ID:       "n1",
			Subnets:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd01::/64")},
			Resolves: true,
		},
	)
	t.SetNetwork(Network{ID: "n2", Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}, Resolves: true})
	t.SetNetwork(Network{ID: "n0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}})
	t.SetContainer(Container{
		ID:    "web",
		DNS:   dns.Client{ID: "web", Forward: true},
		Hosts: map[string][]netip.Addr{"host.docker.internal": {addr("10.1.0.1")}},
		Endpoints: []Endpoint{
			{
				Network: "n1",
				Suffix:  "one",
				Names:   []string{"web", "Www"},
				Addrs: []netip.Addr{addr("10.1.0.2"),
					addr("fd01::2")},
				Services: []Service{{80, "tcp"}},
			},
			{
				Network:  "n2",
				Suffix:   "two",
				Names:    []string{"web"},
				Addrs:    []netip.Addr{addr("10.2.0.2")},
				Services: []Service{{80, "tcp"}},
			},
		},
	})
	for i, name := range []string{"db", "db2"} {
		t.SetContainer(Container{
			ID: name,
			Endpoints: []Endpoint{
				{
					Network: "n1",
					Suffix:  "one",
					Names:   []string{name, "store"},
					Addrs:   []netip.Addr{addr(fmt.Sprint("10.1.0.", 3+i))},
				},
			},
		})
	}
	t.SetContainer(Container{
		ID:    "app",
		Hosts: map[string][]netip.Addr{"web": {addr("192.0.2.9")}},
		Endpoints: []Endpoint{
			{
				Network: "n2",
				Suffix:  "two",
				Names:   []string{"app"},
				Addrs:   []netip.Addr{addr("10.2.0.5")},
				Links:   []network.Link{{Target: "WEB", Alias: "Front"}, {Target: "gone", Alias: "lost"}},
			},
		},
	})
	t.SetContainer(
		Container{
			ID: "old",
			Endpoints: []Endpoint{
				{Network: "n0", Suffix: "bridge", Names: []string{"old"}, Addrs: []netip.Addr{addr("172.17.0.2")}},
			},
		},
	)
	t.SetContainer(Container{
		ID:    "new",
		Links: []network.Link{{Target: "old", Alias: "ancient"}},
		Endpoints: []Endpoint{
			{Network: "n0", Suffix: "bridge", Names: []string{"new"}, Addrs: []netip.Addr{addr("172.17.0.3")}},
		},
	})
	return t
}

func TestWhoSeesWhichNames(t *testing.T) {
	table := town()
	for _, test := range []struct {
		who, name string
		want      string // addresses; "-": no such name
	}{
		{"db", "web", "10.1.0.2 fd01::2"},
		{"db", "web.one", "10.1.0.2 fd01::2"},
		{"db", "www", "10.1.0.2 fd01::2"},
		{"db", "web.two", "-"},
		{"db", "store", "10.1.0.3 10.1.0.4"},
		{"db", "db", "10.1.0.3"}, // itself
		{"db", "app", "-"},
		{"db", "host.docker.internal", "-"}, // web's alone
		{"web", "web", "10.1.0.2 10.2.0.2 fd01::2"},
		{"web", "app", "10.2.0.5"},
		{"web", "host.docker.internal", "10.1.0.1"},
		{"web", "front", "-"}, // app's alone
		{"app", "front", "10.2.0.2"},
		{"app", "front.two", "10.2.0.2"},
		{"app", "front.one", "-"},
		{"app", "web", "192.0.2.9"}, // its own goes before
		{"app", "web.two", "10.2.0.2"},
		{"app", "lost", "-"}, // the target is not there
		{"new", "old", "-"},  // on a network without names
		{"new", "ancient", "-"},
		{"nobody", "web", "-"},
		{"db", "", "-"},
	} {
		addrs, _, ok := table.LookupName(test.who, test.name)
		got := "-"
		if ok {
			var list []string
			for _, a := range addrs {
				list = append(list, a.String())
			}
			slices.Sort(list)
			got = strings.Join(list, " ")
		}
		if got != test.want {
			t.Errorf("%s asks for %q: %s, want %s", test.who, test.name, got, test.want)
		}
	}
}

func TestWhoSeesTheNamesOfAddresses(t *testing.T) {
	table := town()
	for _, test := range []struct {
		who, addr, name string
		ours            bool
	}{
		{"db", "10.1.0.2", "web.one", true},
		{"db", "fd01::2", "web.one", true},
		{"db", "10.2.0.2", "", true}, // of a network that it is not on
		{"web", "10.2.0.2", "web.two", true},
		{"web", "10.1.0.4", "db2.one", true},
		{"web", "10.1.0.99", "", true}, // nobody's
		{"new", "172.17.0.2", "", true},
		{"web", "192.0.2.1", "", false},
		{"nobody", "10.1.0.2", "", true},
	} {
		if name, ours := table.LookupAddr(test.who, addr(test.addr)); name != test.name || ours != test.ours {
			t.Errorf("%s asks for %s: %q, %v", test.who, test.addr, name, ours)
		}
	}
}

func TestServices(t *testing.T) {
	table := town()
	for _, test := range []struct{ who, service, proto, name, want string }{
		{"db", "80", "tcp", "web", "[{web.one 80}]"},
		{"db", "80", "tcp", "www.one", "[{web.one 80}]"},
		{"web", "80", "tcp", "web", "[{web.one 80} {web.two 80}]"},
		{"db", "80", "udp", "web", "[]"},
		{"db", "81", "tcp", "web", "[]"},
		{"db", "http", "tcp", "web", "[]"},
		{"db", "65616", "tcp", "web", "[]"}, // 80, cut to 16 bits
		{"db", "80", "tcp", "nothing", "[]"},
		{"nobody", "80", "tcp", "web", "[]"},
	} {
		list, ok := table.LookupService(test.who, test.service, test.proto, test.name)
		if got := fmt.Sprint(list); got != test.want || ok != (test.want != "[]") {
			t.Errorf("%s asks for _%s._%s.%s: %s, %v", test.who, test.service, test.proto, test.name, got, ok)
		}
	}
}

func TestLinksLeadToWhoHasTheName(t *testing.T) {
	table := town()
	links := func(want ...Pair) {
		t.Helper()
		if got := table.Links("n2"); !slices.Equal(got, want) {
			t.Errorf("links are %v, want %v", got, want)
		}
	}
	links(Pair{"app", "web"})
	table.SetContainer(
		Container{
			ID: "late",
			Endpoints: []Endpoint{
				{Network: "n2", Suffix: "two", Names: []string{"gone"}, Addrs: []netip.Addr{addr("10.2.0.6")}},
			},
		},
	)
	links(Pair{"app", "late"}, Pair{"app", "web"})
	if got, _, _ := table.LookupName("app", "lost"); !slices.Equal(got, []netip.Addr{addr("10.2.0.6")}) {
		t.Errorf("a target that came leads to %v", got)
	}
	if touched := table.RemoveContainer("web"); !slices.Equal(touched, []string{"n1", "n2"}) {
		t.Errorf("a removal is about %v", touched)
	}
	links(Pair{"app", "late"})
	table.RemoveContainer("app")
	links()
	if got := table.Links("unknown"); got != nil {
		t.Errorf("links on no network: %v", got)
	}
	if got := table.Linkers("other", "old"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("linkers of old are %v", got)
	}
	if got := table.LinkersOn("n0"); !slices.Equal(got, []string{"new"}) || len(table.LinkersOn("n1")) != 0 {
		t.Errorf("linkers on the bridge are %v", got)
	}
	table.RemoveContainer("new")
	if got := table.Linkers("old"); len(got) != 0 {
		t.Errorf("linkers that are gone are %v", got)
	}
}

func TestClients(t *testing.T) {
	table := town()
	if c, ok := table.Client("web"); !ok || !c.Forward {
		t.Errorf("%+v, %v", c, ok)
	}
	if c, ok := table.Client("nobody"); ok || c.ID != "nobody" || c.Forward {
		t.Errorf("one that is not there: %+v, %v", c, ok)
	}
}

// TestHistoriesEndAsIfBegunThere changes a table at random, and compares what it says in the end with a table that was
// told the last state only. Nothing may be left of what is gone.
func TestHistoriesEndAsIfBegunThere(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		table := NewTable()
		networks, containers := map[string]Network{}, map[string]Container{}
		pick := func(list ...string) string { return list[random.IntN(len(list))] }
		for range 300 {
			switch id := pick("a", "b", "c", "d", "e"); random.IntN(5) {
			case 0:
				delete(containers, id)
				table.RemoveContainer(id)
			case 1:
				n := Network{
					ID:       pick("n1", "n2"),
					Resolves: random.IntN(4) > 0,
					Subnets:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
				}
				networks[n.ID] = n
				table.SetNetwork(n)
			case 2:
				n := pick("n1", "n2", "n3")
				delete(networks, n)
				table.RemoveNetwork(n)
			default:
				c := Container{ID: id, Hosts: map[string][]netip.Addr{}}
				for _, n := range []string{"n1", "n2"} {
					if random.IntN(2) == 0 {
						continue
					}
					e := Endpoint{Network: n, Suffix: "net" + n, Names: []string{id, pick("x", "Y", "a")}}
					e.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(9))})}
					if random.IntN(2) == 0 {
						e.Links = []network.Link{{Target: pick("a", "b", "x", "y"), Alias: pick("l", "m", "a")}}
					}
					c.Endpoints = append(c.Endpoints, e)
				}
				if random.IntN(3) == 0 {
					c.Links = []network.Link{{Target: pick("a", "b"), Alias: "l"}}
				}
				containers[id] = c
				table.SetContainer(c)
			}
		}
		fresh := NewTable()
		for _, n := range networks {
			fresh.SetNetwork(n)
		}
		for _, c := range containers {
			fresh.SetContainer(c)
		}
		if got, want := said(table), said(fresh); got != want {
			t.Fatalf("seed %d: the table says\n%s\nwant\n%s", seed, got, want)
		}
		for id := range containers {
			table.RemoveContainer(id)
		}
		for id := range networks {
			table.RemoveNetwork(id)
		}
		if len(table.networks)+len(table.containers)+len(table.linkers) > 0 {
			t.Fatalf("seed %d: %d networks, %d containers and %d targets are left of nothing", seed,
				len(table.networks), len(table.containers), len(table.linkers))
		}
	}
}

// said is all that a table says of the names that histories have.
func said(table *Table) string {
	var b strings.Builder
	for _, who := range []string{"a", "b", "c", "d", "e"} {
		for _, name := range []string{"a", "b", "c", "d", "e", "x", "y", "l", "m", "a.netn1", "x.netn2", "l.netn1"} {
			addrs, _, ok := table.LookupName(who, name)
			slices.SortFunc(addrs, netip.Addr.Compare)
			fmt.Fprintln(&b, who, name, addrs, ok)
		}
		_, in := table.Client(who)
		_, ours := table.LookupAddr(who, addr("10.0.0.200"))
		fmt.Fprintln(&b, who, in, ours, table.Linkers(who))
	}
	fmt.Fprintln(&b, table.Links("n1"), table.Links("n2"), table.LinkersOn("n1"), table.LinkersOn("n2"))
	return b.String()
}

// BenchmarkOneMore changes one of many containers: it costs the same however many there are.
func BenchmarkOneMore(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := NewTable()
			table.SetNetwork(Network{ID: "n", Resolves: true})
			one := func(i int) Container {
				id := fmt.Sprint("c", i)
				return Container{
					ID: id,
					Endpoints: []Endpoint{
						{
							Network: "n",
							Suffix:  "net",
							Names:   []string{id},
							Addrs:   []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
						},
					},
				}
			}
			for i := range n {
				table.SetContainer(one(i))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table.SetContainer(one(i % n))
			}
		})
	}
}
