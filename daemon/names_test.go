package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	vswitch "github.com/usernet/usernet/switch"

	"github.com/usernet/usernet/network"
)

// onNetworks is a container on the networks open (10.1.0.0/16), inner (internal) and named servers, and the networks by
// id.
func onNetworks(t *testing.T, on ...string) (*network.Container, map[string]*network.Network) {
	t.Helper()
	nets := map[string]*network.Network{
		"open":  {ID: "open", Name: "open", Driver: network.DriverBridge},
		"inner": {ID: "inner", Name: "inner", Driver: network.DriverBridge, Internal: true},
		"servers": {
			ID:      "servers",
			Name:    "servers",
			Driver:  network.DriverBridge,
			Options: map[string]string{"usernet.dns": "192.0.2.53:53,192.0.2.54:53"},
		},
	}
	c := &network.Container{ID: strings.Repeat("c", 64), Name: "web", Hostname: "www"}
	for i, id := range on {
		e := &network.Endpoint{ID: fmt.Sprint("e", i), NetworkID: id, Network: id}
		e.IPv4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 2}), 16)
		e.Gateway4 = netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 1})
		c.Endpoints = append(c.Endpoints, e)
	}
	return c, nets
}

func TestNamesOfAContainer(t *testing.T) {
	for name, test := range map[string]struct {
		on     []string
		change func(*network.Container)
		want   string // forwarding, servers, host.docker.internal, own
	}{
		"outside":             {[]string{"open"}, nil, "true [192.0.2.1:53] [10.1.0.1] short"},
		"inside only":         {[]string{"inner"}, nil, "false [192.0.2.1:53] [] short"},
		"inside and outside":  {[]string{"inner", "open"}, nil, "true [192.0.2.1:53] [10.2.0.1] short"},
		"a network's servers": {[]string{"servers"}, nil, "true [192.0.2.53:53 192.0.2.54:53] [10.1.0.1] short"},
		"its own before those": {[]string{"servers"}, func(c *network.Container) { c.DNS = []string{"192.0.2.9:53"} },
			"true [192.0.2.9:53] [10.1.0.1] short"},
		"ndots": {[]string{"open"}, func(c *network.Container) { c.DNSOptions = []string{"ndots:2"} },
			"true [192.0.2.1:53] [10.1.0.1] not short"},
		"ndots of none": {[]string{"open"}, func(c *network.Container) { c.DNSOptions = []string{"ndots:0"} },
			"true [192.0.2.1:53] [10.1.0.1] short"},
		"ndots of nonsense": {[]string{"open"}, func(c *network.Container) { c.DNSOptions = []string{"ndots:x"} },
			"true [192.0.2.1:53] [10.1.0.1] short"},
		"its own host": {[]string{"open"},
			func(c *network.Container) { c.ExtraHosts = []string{"Host.docker.internal:192.0.2.7"} },
			"true [192.0.2.1:53] [192.0.2.7] short"},
		"the host by a flag": {[]string{"open"},
			func(c *network.Container) { c.ExtraHosts = []string{"host.docker.internal:host-gateway"} },
			"true [192.0.2.1:53] [10.1.0.1] short"},
		"a link of that name": {[]string{"open"},
			func(c *network.Container) { c.Endpoints[0].Links = []string{"db:host.docker.internal"} },
			"true [192.0.2.1:53] [] short"},
		"a network that is gone": {[]string{"open", "gone"}, nil, "true [192.0.2.1:53] [10.1.0.1] short"},
	} {
		c, nets := onNetworks(t, test.on...)
		if test.change != nil {
			test.change(c)
		}
		one := namesOf(c, nets, []string{"192.0.2.1:53"})
		short := map[bool]string{true: "not short", false: "short"}[one.DNS.NoShort]
		if got := fmt.Sprintf("%v %v %v %s", one.DNS.Forward, one.DNS.Upstreams, one.Hosts["host.docker.internal"],
			short); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestEndpointsInTheTableOfNames(t *testing.T) {
	c, nets := onNetworks(t, "open", "inner")
	c.Exposed = []network.PortProto{{Port: 80, Proto: network.TCP}}
	c.Links = []string{"db", "a:b:c"}
	c.Endpoints[1].Aliases = []string{"Alias"}
	c.Endpoints[1].Links = []string{"db:store"}
	one := namesOf(c, nets, nil)
	if got, want := fmt.Sprintf("%+v", one.Endpoints),
		"[{Network:open Suffix:open Names:[web cccccccccccc www] Addrs:[10.1.0.2] Services:[{Port:80 Proto:tcp}] "+
			"Links:[] Down:false}"+
			" {Network:inner Suffix:inner Names:[web cccccccccccc www Alias] Addrs:[10.2.0.2] Services:[{Port:80 "+
			"Proto:tcp}] Links:[db:store] Down:false}]"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := fmt.Sprint(one.Links); got != "[db:db]" {
		t.Errorf("links of its hosts file: %s", got)
	}
}

func TestPortsThatALinkOpens(t *testing.T) {
	c := &network.Container{
		Exposed: []network.PortProto{
			{Port: 80, Proto: network.TCP},
			{Port: 53, Proto: network.UDP},
			{Port: 9, Proto: "sctp"},
		},
		Ports: []network.PortBinding{{Port: 8000, End: 8010, Proto: network.TCP}, {Port: 7, Proto: network.UDP}},
	}
	const tcp, udp = 6, 17
	want := []vswitch.PortRange{
		{Proto: tcp, First: 80, Last: 80},
		{Proto: udp, First: 53, Last: 53},
		{Proto: tcp, First: 8000, Last: 8010},
		{Proto: udp, First: 7, Last: 7},
	}
	if got := reachable(c); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// FuzzExtraHost reads values of --add-host: what is taken has a name and an address.
func FuzzExtraHost(f *testing.F) {
	for _, s := range []string{"db:10.1.2.3", "db:[::1]", "db:host-gateway", ":", "db:x", "db"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, addrs, ok := extraHost(s, &network.Container{}, nil)
		if ok && (len(addrs) != 1 || !strings.HasPrefix(s, name+":")) {
			t.Errorf("%q is read as %q %v", s, name, addrs)
		}
	})
}
