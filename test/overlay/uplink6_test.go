package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// advertise has dnsmasq be a router every four seconds, whose lifetime is of eight.
const advertise = "--ra-param=lan0,4,8"

// addrs6 waits until eth0 of a container has an address, and returns what there is of IPv6.
func (h *host) addrs6(name, want string) string {
	h.t.Helper()
	var shown string
	eventually(h.t, func() error {
		shown = h.exec(name, "ip", "-6", "addr", "show", "eth0").stdout + h.exec(name, "ip", "-6", "route").stdout
		if !strings.Contains(shown, want) {
			return fmt.Errorf("no %q in %s: %s", want, name, shown)
		}
		return nil
	})
	return shown
}

// ofMAC is the address of a prefix that follows from a MAC address (RFC 4291, appendix A).
func ofMAC(t testing.TB, prefix, mac string) string {
	t.Helper()
	m, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr(prefix).As16()
	copy(a[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(a).String()
}

// TestRoutersAnnouncePrefixes: containers have the addresses and the default route that a router announces, before they
// start and for as long as it does.
func TestRoutersAnnouncePrefixes(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	h.macvtap("mt3", "passthru", 4703)
	h.start()
	create := func(name string) []string {
		return []string{"network", "create", "-d", "macvlan", "-o", "parent=mt3", "--subnet", "198.51.100.0/24",
			"--gateway", "198.51.100.1", "--ip-range", "198.51.100.64/26", "--ipv6", name}
	}
	h.fails("no router advertises an IPv6 prefix", create("lan")...)
	l.serve("--enable-ra", advertise, "--dhcp-range=2001:db8:51::,ra-only,64,2h")
	h.ok(create("lan")...)
	if out := h.ok("network", "inspect", "lan"); !strings.Contains(out, `"2001:db8:51::/64"`) {
		t.Errorf("the network is not that of the router: %s", out)
	}
	const mac = "02:00:5e:10:00:31"
	own, next := ofMAC(t, "2001:db8:51::", mac), ofMAC(t, "2001:db8:52::", mac)
	h.ok("run", "--rm", "--network", "lan", "--mac-address", mac, "--", "sh", "-c", "ip -6 addr | grep -q "+own)
	digestServer(t, lanNS, "[2001:db8:51::1]:80")
	h.serve("web", []string{"--network", "lan", "--mac-address", mac, "-p", "8080:80"}, helper, "tcpserve", ":80",
		"digest")
	shown := h.addrs6("web", own)
	if !regexp.MustCompile(`valid_lft \d+sec`).MatchString(shown) ||
		!regexp.MustCompile(`default via fe80::\S+ dev eth0`).MatchString(shown) {
		t.Errorf("no lifetimes, or no default route: %s", shown)
	}
	all := func() {
		t.Helper()
		h.pings("web", "2001:db8:51::1")
		reaches(t, lanNS, own)
		h.seesHost("web")
	}
	all()
	h.fails("follows from the MAC address", "run", "--rm", "--network", "lan", "--ip6", "2001:db8:51::77", "--", "true")

	// The daemon is killed: the addresses stay.
	h.stop(syscall.SIGKILL)
	h.again()
	all()

	// One prefix more: the container has an address of it too, and may send from it.
	rootIn(t, lanNS, "ip", "addr", "add", "2001:db8:52::1/64", "dev", "lan0", "nodad")
	l.stopDHCP()
	l.serve("--enable-ra", advertise, "--dhcp-range=2001:db8:51::,ra-only,64,2h",
		"--dhcp-range=2001:db8:52::,ra-only,64,2h")
	h.addrs6("web", next)
	reaches(t, lanNS, next)
	all()

	// The router goes: so does the default route, and not the address.
	l.stopDHCP()
	eventually(t, func() error {
		if r := h.exec("web", "ip", "-6", "route"); strings.Contains(r.stdout, "default") {
			return fmt.Errorf("the router is gone and the route is there: %v", r)
		}
		return nil
	})
	all()

	// Another station has the address that follows from the MAC address.
	h.ok("rm", "-f", "web")
	rootIn(t, lanNS, "ip", "addr", "add", own+"/64", "dev", "lan0", "nodad")
	l.serve("--enable-ra", advertise, "--dhcp-range=2001:db8:51::,ra-only,64,2h")
	h.fails("is that of another station", "run", "--rm", "--network", "lan", "--mac-address", mac, "--", "true")
	h.ok("run", "--rm", "--network", "lan", "--", "ping", "-c1", "-W5", "2001:db8:51::1")
}

// TestDHCPv6: where routers say so, addresses are a server's.
func TestDHCPv6(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	h.macvtap("mt4", "passthru", 4704)
	h.start()
	serve := func() {
		l.serveDHCP("198.51.100.100", "198.51.100.150", "--enable-ra", "--ra-param=lan0,4,600",
			"--dhcp-range=2001:db8:51::100,2001:db8:51::1ff,64,2m")
	}
	serve()
	h.docker("network", "create", "-d", "macvlan", "-o", "parent=mt4", "--ipv6", "pub")
	const mac = "02:00:5e:10:00:41"
	digestServer(t, lanNS, "[2001:db8:51::1]:80")
	start := func() (v4, v6 string) {
		t.Helper()
		h.serve("web", []string{"--network", "pub", "--mac-address", mac, "-p", "8080:80"}, helper, "tcpserve", ":80",
			"digest")
		shown := h.addrs6("web", "2001:db8:51::1")
		return h.address("web", "eth0").String(), regexp.MustCompile(`2001:db8:51::1[0-9a-f]{2}`).FindString(shown)
	}
	v4, v6 := start()
	l.leased(" "+v6+" web ", true)
	all := func() {
		t.Helper()
		h.pings("web", "2001:db8:51::1")
		reaches(t, lanNS, v6)
		reaches(t, lanNS, v4)
		h.seesHost("web")
	}
	all()

	// The daemon is killed: the server is asked whether the address stays, and it does.
	h.stop(syscall.SIGKILL)
	h.again()
	l.logged(1, "DHCPREBIND")
	all()
	if shown := h.addrs6("web", v6); !strings.Contains(shown, "default via fe80::") {
		t.Errorf("no default route: %s", shown)
	}
	h.ok("rm", "-f", "web")
	l.leased(v6, false)
	l.leased(v4, false)

	// Another station has had the addresses all the time: the server is told, and gives others.
	l.station(v4+"/24", v6+"/64")
	was4, was6 := v4, v6
	if v4, v6 = start(); v4 == was4 || v6 == was6 {
		t.Errorf("%s and %s are another station's", v4, v6)
	}
	l.logged(1, "DHCPDECLINE", was4)
	l.logged(2, "DHCPDECLINE") // the line of DHCPv6 has no address
	all()
}
