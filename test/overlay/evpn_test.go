package overlay

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// routerFlags make a host speak to the router of the tests.
func routerFlags(more ...string) []string {
	return append([]string{"--bgp-asn", "65000", "--bgp-neighbor", routerAddr, "--bgp-hold-time", "9s"}, more...)
}

// TestEVPN has two daemons that are in no cluster, and FRR with a kernel's VXLAN device, in one fabric: each learns by
// BGP where the endpoints of the others are.
func TestEVPN(t *testing.T) {
	r := newRouter(t)
	a, b := newHost(t, 1), newHost(t, 2)
	password := filepath.Join(b.dir, "password")
	if err := os.WriteFile(password, []byte("fabric\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.start(routerFlags()...)
	b.start(routerFlags("--bgp-password-file", password)...)
	create := func(h *host, span string) {
		h.docker("network", "create", "-d", "vxlan", "--subnet", "10.44.0.0/24", "--ip-range", span, "--gateway",
			"10.44.0.254", "--ipv6", "--subnet", "fd44::/64", "-o", "usernet.vni=42", "-o", "usernet.evpn=true", "v44")
	}
	create(a, "10.44.0.0/26")
	create(b, "10.44.0.64/26")
	digestServer(t, leafNS, "10.44.0.193:80")
	a.serve("one", []string{"--network", "v44", "--ip", "10.44.0.10", "--ip6", "fd44::10"}, helper, "tcpserve", ":80",
		"digest")
	b.serve("two", []string{"--network", "v44", "--ip", "10.44.0.70", "--ip6", "fd44::70"}, helper, "tcpserve", ":80",
		"digest")
	all := func() {
		t.Helper()
		for _, address := range []string{"10.44.0.70", "10.44.0.193", "fd44::70", "fd44::c1"} {
			a.pings("one", address)
		}
		b.pings("two", "10.44.0.10")
		b.pings("two", "10.44.0.193")
		reaches(t, leafNS, "10.44.0.10")
		reaches(t, leafNS, "fd44::70")
	}
	all()
	a.streams("one", "10.44.0.10", leafNS, "10.44.0.193")
	b.streams("two", "10.44.0.70", leafNS, "10.44.0.193")

	t.Run("each knows the others' endpoints", func(t *testing.T) {
		r.shows("show bgp l2vpn evpn", "[3]:[0]:[32]:[192.0.2.1]", "[3]:[0]:[32]:[192.0.2.2]",
			"[2]:[0]:[48]:[02:42:0a:2c:00:0a]:[32]:[10.44.0.10]", "[2]:[0]:[48]:[02:42:0a:2c:00:46]:[128]:[fd44::70]",
			"RT:65000:42")
		r.has("bridge fdb show dev vx42", "02:42:0a:2c:00:0a dst 192.0.2.1", "00:00:00:00:00:00 dst 192.0.2.2")
		_, leaf, _ := strings.Cut(rootIn(t, leafNS, "ip", "-o", "link", "show", "eth0"), "link/ether ")
		leaf = strings.Fields(leaf)[0]
		eventually(t, func() error { return hasWords(a.ok("network", "inspect", "--verbose", "v44"), leaf) })
	})
	t.Run("a container that ends is withdrawn", func(t *testing.T) {
		a.idle("gone", "--network", "v44", "--ip", "10.44.0.11")
		r.shows("show bgp l2vpn evpn", "[10.44.0.11]")
		a.ok("rm", "-f", "gone")
		r.shows("show bgp l2vpn evpn", "![10.44.0.11]", "[10.44.0.10]")
		r.has("bridge fdb show dev vx42", "!02:42:0a:2c:00:0b", "02:42:0a:2c:00:0a")
	})
	t.Run("a MAC moves between hosts", func(t *testing.T) {
		const mac = "02:42:0a:2c:00:28"
		a.idle("mover", "--network", "v44", "--ip", "10.44.0.40")
		r.has("bridge fdb show dev vx42", mac+" dst 192.0.2.1")
		b.pings("two", "10.44.0.40")
		b.idle("mover", "--network", "v44", "--ip", "10.44.0.40")
		r.has("bridge fdb show dev vx42", mac+" dst 192.0.2.2")
		r.shows("show bgp l2vpn evpn route detail", "MM:1")
		a.ok("rm", "-f", "mover")
		a.pings("one", "10.44.0.40") // which is there no more, but on host 2
		reaches(t, leafNS, "10.44.0.40")
		b.ok("rm", "-f", "mover")
		r.has("bridge fdb show dev vx42", "!"+mac)
	})
	t.Run("the router is killed, and comes back", func(t *testing.T) {
		r.end(r.bgpd, syscall.SIGKILL)
		a.session(false)
		b.session(false)
		a.pings("one", "10.44.0.70") // what was learned stays for a while
		r.startBGP()
		a.session(true)
		b.session(true)
		all()
		r.end(r.bgpd, syscall.SIGTERM)
		a.session(false)
		r.startBGP()
		a.session(true)
		all()
	})
	t.Run("the daemon is killed, and comes back", func(t *testing.T) {
		a.stop(syscall.SIGKILL)
		r.shows("show bgp l2vpn evpn", "![192.0.2.1]", "[192.0.2.2]")
		a.again()
		all()
	})
	t.Run("routes to containers", func(t *testing.T) { unicast(t, a, r) })
	t.Run("what cannot be is refused", func(t *testing.T) {
		for _, test := range []struct {
			words   string
			options []string
		}{
			{"is for VXLAN", []string{"-d", "vxlan", "-o", "usernet.vni=43", "-o", "usernet.evpn=true", "-o",
				"usernet.encap=geneve"}},
			{"is no route target", []string{"-d", "vxlan", "-o", "usernet.vni=43", "-o", "usernet.evpn=true", "-o",
				"usernet.route_targets=x"}},
			{"those of -o usernet.evpn=true", []string{"-d", "vxlan", "-o", "usernet.vni=43", "-o",
				"usernet.route_targets=1:2", "-o", "usernet.peers=192.0.2.9"}},
			{"endpoints or subnets", []string{"-o", "usernet.bgp=all"}},
			{"two addresses of one family", []string{"-o", "usernet.bgp_next_hop=192.0.2.1,192.0.2.2"}},
			{"unknown option usernet.evpn", []string{"-o", "usernet.evpn=true"}},
		} {
			a.fails(test.words, append(append([]string{"network", "create"}, test.options...), "n")...)
		}
	})
	b.stop(syscall.SIGTERM)
	r.shows("show bgp l2vpn evpn", "![192.0.2.2]")
	b.start() // without routers: the container stays, and its network cannot be
	b.fails("--bgp-neighbor", "network", "create", "-d", "vxlan", "-o", "usernet.vni=43", "-o", "usernet.evpn=true",
		"n")
	b.fails("--bgp-neighbor", "network", "create", "-o", "usernet.bgp=endpoints", "n")
}

// unicast has the router route to containers, and to subnets, by way of the host.
func unicast(t *testing.T, h *host, r *router) {
	h.ok("network", "create", "--subnet", "10.77.3.0/26", "-o", "usernet.bgp=endpoints", "routed")
	h.ok("network", "create", "--subnet", "10.77.4.0/24", "--ip-range", "10.77.4.64/26", "-o", "usernet.bgp=subnets",
		"-o", "usernet.bgp_next_hop=192.0.2.77", "block")
	h.idle("near", "--network", "routed", "--ip", "10.77.3.9")
	h.idle("far", "--network", "block")
	r.shows("show ip route bgp", "10.77.3.9/32", "via 192.0.2.1", "10.77.4.64/26", "via 192.0.2.77")
	r.has("ip route show proto bgp", "10.77.3.9", "10.77.4.64/26")
	h.ok("network", "disconnect", "routed", "near")
	r.has("ip route show proto bgp", "!10.77.3.9", "10.77.4.64/26")
	h.ok("rm", "-f", "near", "far")
	r.has("ip route show proto bgp", "!10.77.4.64/26")
	h.ok("network", "rm", "routed", "block")
}
