package pasta

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fakeHost is a host's network written down: interfaces by index, their addresses and routes.
type fakeHost struct {
	names  []string // index 1 first
	addrs  map[int][]string
	routes []netlink.Route
}

func (f *fakeHost) RouteList(_ netlink.Link, family int) ([]netlink.Route, error) {
	var out []netlink.Route
	for _, r := range f.routes {
		if r.Family == family {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *fakeHost) AddrList(link netlink.Link, family int) ([]netlink.Addr, error) {
	var out []netlink.Addr
	for _, s := range f.addrs[link.Attrs().Index] {
		p := netip.MustParsePrefix(s)
		if p.Addr().Is4() == (family == unix.AF_INET) {
			out = append(out, netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(),
				Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}})
		}
	}
	return out, nil
}

func (f *fakeHost) LinkByIndex(i int) (netlink.Link, error) {
	if i < 1 || i > len(f.names) {
		return nil, errors.New("link not found")
	}
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: f.names[i-1], Index: i}}, nil
}

func (f *fakeHost) LinkByName(name string) (netlink.Link, error) {
	return f.LinkByIndex(slices.Index(f.names, name) + 1)
}

// via is a route written down: "default" or a prefix, the gateway or "", the interface.
func via(dst, gateway string, index int) netlink.Route {
	r := netlink.Route{LinkIndex: index, Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN, Gw: net.ParseIP(gateway),
		Family: unix.AF_INET}
	if strings.Contains(dst+gateway, ":") {
		r.Family = unix.AF_INET6
	}
	if dst != "default" {
		p := netip.MustParsePrefix(dst)
		r.Dst = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	return r
}

func office() *fakeHost {
	return &fakeHost{
		names: []string{"lo", "eth0", "wlan0"},
		addrs: map[int][]string{
			1: {"127.0.0.1/8", "::1/128"},
			2: {"192.0.2.7/24", "198.51.100.9/32", "2001:db8::7/64", "fe80::7/64"},
			3: {"203.0.113.3/24"},
		},
		routes: []netlink.Route{
			via("default", "192.0.2.1", 2), via("default", "203.0.113.1", 3), via("192.0.2.0/24", "", 2),
			via("203.0.113.0/24", "", 3),
			via("10.0.0.0/8", "192.0.2.2", 2), via("default", "fe80::1", 2), via("2001:db8::/64", "", 2),
			via("fe80::/64", "", 2),
		},
	}
}

// say writes a host's excerpt down.
func (h *host) say() string {
	var b strings.Builder
	b.WriteString(h.Interface)
	for _, a := range h.Addrs {
		b.WriteString(" " + a.String())
	}
	for _, r := range h.Routes {
		b.WriteString("; " + r.Dst.String())
		if r.Via.IsValid() {
			b.WriteString(" via " + r.Via.String())
		}
	}
	return b.String()
}

func TestTheNamespaceLooksLikeTheHost(t *testing.T) {
	bare := &fakeHost{names: []string{"lo"}, addrs: map[int][]string{1: {"127.0.0.1/8"}}}
	pointToPoint := &fakeHost{
		names:  []string{"lo", "ppp0"},
		addrs:  map[int][]string{2: {"192.0.2.7/32"}},
		routes: []netlink.Route{via("default", "198.51.100.1", 2)},
	}
	noDefault := &fakeHost{
		names:  []string{"lo", "eth9"},
		addrs:  map[int][]string{2: {"192.0.2.7/24"}},
		routes: []netlink.Route{via("192.0.2.0/24", "", 2)},
	}
	for _, c := range []struct {
		name string
		host *fakeHost
		args string
		want string
	}{
		{"as it is", office(), "", "eth0 192.0.2.7/24 198.51.100.9/32 2001:db8::7/64; 192.0.2.0/24; 0.0.0.0/0 via 192.0.2.1; " +
			"10.0.0.0/8 via 192.0.2.2; 2001:db8::/64; ::/0 via fe80::1"},
		{"IPv4 only", office(), "-4", "eth0 192.0.2.7/24 198.51.100.9/32; 192.0.2.0/24; 0.0.0.0/0 via 192.0.2.1; 10.0.0.0/8 via 192.0.2.2"},
		{"another interface", office(), "-4 -i wlan0", "wlan0 203.0.113.3/24; 203.0.113.0/24; 0.0.0.0/0 via 203.0.113.1"},
		{"by the outbound interface", office(), "-4 --outbound-if4 wlan0", "wlan0 203.0.113.3/24; 203.0.113.0/24; 0.0.0.0/0 via 203.0.113.1"},
		{"RootlessKit's call", office(), "-4 -I tap0 -a 10.0.2.100 -n 24 -g 10.0.2.2",
			"tap0 10.0.2.100/24; 0.0.0.0/0 via 10.0.2.2"},
		{"an address of the host", office(), "-4 -a 192.0.2.7 -g 192.0.2.9",
			"eth0 192.0.2.7/24; 0.0.0.0/0 via 192.0.2.9"},
		{"a foreign address", office(), "-4 -a 198.18.0.1 -g 198.18.0.2",
			"eth0 198.18.0.1/24; 0.0.0.0/0 via 198.18.0.2"},
		{"the gateway's address", office(), "-4 -a 192.0.2.1",
			"eth0 192.0.2.1/24; 192.0.2.0/24; 10.0.0.0/8 via 192.0.2.2"},
		{"one address, one route", office(), "-4 --config-net --no-copy-addrs --no-copy-routes",
			"eth0 192.0.2.7/24; 0.0.0.0/0 via 192.0.2.1"},
		{"a gateway beyond the link", pointToPoint, "-4", "ppp0 192.0.2.7/32; 198.51.100.1/32; 0.0.0.0/0 via 198.51.100.1"},
		{"no default route", noDefault, "-4", "eth9 192.0.2.7/24; 192.0.2.0/24"},
		{"no network at all", bare, "", "tap0 169.254.2.1/16; 0.0.0.0/0 via 169.254.2.2; ::/0 via fe80::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := Parse(append(strings.Fields(c.args), "1"))
			if err != nil {
				t.Fatal(err)
			}
			h, err := readHost(c.host, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.say(); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
	o, _ := Parse([]string{"-i", "nowhere0", "1"})
	if _, err := readHost(office(), o); err == nil || !strings.Contains(err.Error(), "nowhere0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

func TestTheHeaviestNextHopIsTheGateway(t *testing.T) {
	f := office()
	f.routes = append([]netlink.Route{{Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN, Family: unix.AF_INET,
		MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: 3, Gw: net.ParseIP("203.0.113.9"), Hops: 1},
			{LinkIndex: 2, Gw: net.ParseIP("192.0.2.99"), Hops: 9},
		}}}, f.routes[1:]...)
	o, _ := Parse([]string{"-4", "1"})
	h, err := readHost(f, o)
	if err != nil || h.Interface != "eth0" || h.Gateways[v4].String() != "192.0.2.99" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestThisHostCanBeRead(t *testing.T) {
	handle, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	o, _ := Parse([]string{"1"})
	if h, err := readHost(handle, o); err != nil || h.Interface == "" || len(h.Addrs) == 0 {
		t.Errorf("%+v, %v", h, err)
	}
}
