package overlay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A lan is a physical network of two Ethernet segments with one station each, and DHCP servers: lan0 at 198.51.100.1,
// whose cable's other end is p0 in host 1's namespace.
type lan struct {
	t      testing.TB
	dir    string
	server *exec.Cmd
}

const lanNS = "/run/netns/xh-lan"

// newLAN makes one for the length of a test.
func newLAN(t testing.TB, h *host) *lan {
	t.Helper()
	l := &lan{t: t, dir: t.TempDir()}
	addNamespace(t, "xh-lan", h.ns(), "p0")
	rootIn(t, lanNS, "ip", "link", "set", "lo", "up")
	rootIn(t, lanNS, "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "p0", "netns", filepath.Base(h.ns()))
	rootIn(t, lanNS, "ip", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	rootIn(t, lanNS, "ip", "addr", "add", "2001:db8:51::1/64", "dev", "lan0", "nodad")
	rootIn(t, lanNS, "ip", "link", "set", "lan0", "up")
	rootIn(t, h.ns(), "ip", "link", "set", "p0", "up")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the DHCP server's log:\n%s", tail(l.read("log"), 60))
		}
	})
	return l
}

// station puts one more station on the network, with addresses, for the length of a test.
func (l *lan) station(addrs ...string) {
	l.t.Helper()
	const ns = "/run/netns/xh-station"
	rootIn(l.t, lanNS, "ip", "netns", "add", "xh-station")
	l.t.Cleanup(func() { rootIn(l.t, lanNS, "ip", "netns", "del", "xh-station") })
	rootIn(l.t, lanNS, "ip", "link", "add", "link", "lan0", "name", "st0", "netns", "xh-station", "type", "macvlan",
		"mode", "bridge")
	for _, a := range addrs {
		args := []string{"ip", "addr", "add", a, "dev", "st0"}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		rootIn(l.t, ns, args...)
	}
	rootIn(l.t, ns, "ip", "link", "set", "st0", "up")
}

// serveDHCP starts dnsmasq. Leases are of two minutes, its shortest, and are to be renewed after seconds.
func (l *lan) serveDHCP(first, last string, more ...string) {
	l.t.Helper()
	l.serve(append(more, "--dhcp-range="+first+","+last+",255.255.255.0,2m")...)
}

// serve starts dnsmasq, which gives addresses and advertises itself as a router as its arguments say.
func (l *lan) serve(more ...string) {
	l.t.Helper()
	l.server = exec.Command("nsenter", append([]string{"--net=" + lanNS, "dnsmasq", "--no-daemon",
		"--conf-file=/dev/null", "--port=0",
		"--interface=lan0", "--bind-interfaces", "--dhcp-authoritative", "--log-dhcp", "--no-ping", "--user=root",
		"--dhcp-leasefile=" + filepath.Join(l.dir, "leases"),
		"--dhcp-option=58,3", "--dhcp-option=59,60", "--pid-file=" + filepath.Join(l.dir, "pid"),
		"--log-facility=" + filepath.Join(l.dir, "log")}, more...)...)
	if err := l.server.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.stopDHCP)
}

func (l *lan) stopDHCP() {
	if l.server != nil {
		_ = l.server.Process.Signal(syscall.SIGTERM)
		_ = l.server.Wait()
		l.server = nil
	}
}

func (l *lan) read(name string) string {
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	return string(text)
}

// leased waits until the server's leases say what is wanted.
func (l *lan) leased(what string, want bool) {
	l.t.Helper()
	eventually(l.t, func() error {
		if text := l.read("leases"); strings.Contains(text, what) != want {
			return fmt.Errorf("leases with %q: wanted %v: %s\n%s", what, want, text, l.read("log"))
		}
		return nil
	})
}

// logged waits until the server's log has n lines with all words.
func (l *lan) logged(n int, words ...string) {
	l.t.Helper()
	eventually(l.t, func() error {
		found := 0
		for line := range strings.Lines(l.read("log")) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				found++
			}
		}
		if found < n {
			return fmt.Errorf("%d lines with %q, wanted %d: %s", found, words, n, l.read("log"))
		}
		return nil
	})
}

// macvtap gives host h's user a macvtap on p0, as an administrator does. The number is one that no interface has:
// files of /dev are the same in all network namespaces.
func (h *host) macvtap(name, mode string, number int) {
	h.t.Helper()
	rootIn(h.t, h.ns(), "ip", "link", "add", "link", "p0", "name", name, "index", strconv.Itoa(number), "type",
		"macvtap", "mode", mode)
	rootIn(h.t, h.ns(), "ip", "link", "set", name, "up", "allmulticast", "on")
	node := h.tapNode(number)
	if err := os.Chown(node, h.uid(), h.uid()); err != nil {
		h.t.Fatal(err)
	}
}

// tapNode is the file of a macvtap, which is made where /dev is no devtmpfs, as in a container.
func (h *host) tapNode(number int) string {
	h.t.Helper()
	node := "/dev/tap" + strconv.Itoa(number)
	if _, err := os.Stat(node); err != nil {
		script := `m=$(mktemp -d) && mount -t sysfs sysfs "$m" && tr : ' ' <"$m/class/macvtap/` + filepath.Base(node) +
			`/dev"; umount "$m"; rmdir "$m"`
		numbers := strings.Fields(rootIn(h.t, h.ns(), "bash", "-c", script))
		rootIn(h.t, h.ns(), append([]string{"mknod", node, "c"}, numbers...)...)
		h.t.Cleanup(func() { _ = os.Remove(node) })
	}
	return node
}

// tap gives host h's user a TAP.
func (h *host) tap(name string) {
	h.t.Helper()
	rootIn(h.t, h.ns(), "ip", "tuntap", "add", "dev", name, "mode", "tap", "user", strconv.Itoa(h.uid()))
}

// macOf is the MAC address of eth0 of a container.
func (h *host) macOf(name string) string {
	h.t.Helper()
	r := h.exec(name, "cat", "/sys/class/net/eth0/address")
	if r.code != 0 {
		h.t.Fatal(r)
	}
	return strings.TrimSpace(r.stdout)
}

// TestMacvtap: containers on a physical network by a macvtap, with addresses of a DHCP server's.
func TestMacvtap(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	h.fails("cannot be used yet", "uplink", "check", "mt0")
	h.macvtap("mt0", "passthru", 4701)
	if out := h.ok("uplink", "check", "mt0"); !strings.Contains(out, "mode passthru on p0") {
		t.Errorf("uplink check: %s", out)
	}
	h.start()
	h.fails("no DHCP server answers", "network", "create", "-d", "macvlan", "-o", "parent=mt0", "pub")
	l.serveDHCP("198.51.100.100", "198.51.100.150")
	h.docker("network", "create", "-d", "macvlan", "-o", "parent=mt0", "pub")
	if out := h.ok("network", "inspect", "pub"); !strings.Contains(out, `"198.51.100.0/24"`) ||
		!strings.Contains(out, `"198.51.100.1"`) {
		t.Errorf("the network is not that of the DHCP server: %s", out)
	}
	h.fails("already using parent interface", "network", "create", "-d", "macvlan", "-o", "parent=mt0", "again")
	digestServer(t, lanNS, "198.51.100.1:80")
	h.serve("web", []string{"--network", "pub", "-p", "8080:80"}, helper, "tcpserve", ":80", "digest")
	h.idle("other", "--network", "pub", "--hostname", "printer", "--mac-address", "02:00:5e:10:00:01")
	web, other := h.address("web", "eth0").String(), h.address("other", "eth0").String()
	l.leased(h.macOf("web")+" "+web+" web ", true)
	l.leased("02:00:5e:10:00:01 "+other+" printer ", true)

	all := func() {
		t.Helper()
		for _, target := range []string{"198.51.100.1", other, "other"} {
			h.pings("web", target)
		}
		reaches(t, lanNS, web)
		reaches(t, lanNS, other)
		h.streams("web", web, lanNS, "198.51.100.1")
		h.seesHost("web")
	}
	all()
	// The lease is renewed by asking its server, and the one of a station that is silent as well.
	l.logged(3, "DHCPACK", other)

	// The daemon is killed: containers keep their addresses, and those are renewed on.
	h.stop(syscall.SIGKILL)
	before := strings.Count(l.read("log"), "DHCPACK")
	h.again()
	all()
	if a := h.address("web", "eth0").String(); a != web {
		t.Errorf("web has %s, and had %s", a, web)
	}
	l.logged(before+3, "DHCPACK")
	h.ok("rm", "-f", "other")
	l.leased(other, false)

	// Another address is asked for, and given. The server gives any to the others.
	another := "198.51.100.142"
	if another == web {
		another = "198.51.100.143"
	}
	h.idle("third", "--network", "pub", "--ip", another)
	l.leased(another+" third ", true)
	h.fails("gives 198.51.100.1", "run", "--rm", "--network", "pub", "--ip", another, "--", "true")
	h.ok("network", "disconnect", "pub", "third")
	l.leased(another, false)

	// The server's range is another one now, and it says so: the container gets another address.
	l.stopDHCP()
	if err := os.Remove(filepath.Join(l.dir, "leases")); err != nil {
		t.Fatal(err)
	}
	l.serveDHCP("198.51.100.200", "198.51.100.220")
	eventually(t, func() error {
		// While its interface is made anew there is none.
		if r := h.exec("web", "ip", "-4", "addr", "show", "eth0"); !strings.Contains(r.stdout, "inet 198.51.100.2") {
			return fmt.Errorf("web has no other address: %v: %s", r, h.logText())
		}
		return nil
	})
	web = h.address("web", "eth0").String()
	reaches(t, lanNS, web)
	h.seesHost("web")
}

// seesHost checks that the host reaches a container's published port 8080, and the container a server of the host's.
func (h *host) seesHost(name string) {
	h.t.Helper()
	const size = "100000"
	for _, at := range []string{"127.0.0.1:8080", h.addr() + ":8080"} {
		if r := h.run(helper, "tcpsend", at, size); !strings.Contains(r.stdout, "same "+size) {
			h.t.Errorf("the published port at %s: %v", at, r)
		}
	}
	r := h.exec(name, helper, "tcpsend", "host.docker.internal:8080", size)
	if !strings.Contains(r.stdout, "same "+size) {
		h.t.Errorf("the host from %s: %v", name, r)
	}
}

// TestMacvtapOfOneMAC: in mode bridge a macvtap takes frames to its own MAC alone.
func TestMacvtapOfOneMAC(t *testing.T) {
	h := newHost(t, 1)
	newLAN(t, h)
	h.macvtap("mt1", "bridge", 4702)
	if out := h.ok("uplink", "check", "mt1"); !strings.Contains(out, "one container at a time") {
		t.Errorf("uplink check: %s", out)
	}
	h.start()
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=mt1", "--subnet", "198.51.100.0/24", "--gateway",
		"198.51.100.1", "--ipv6", "--subnet", "2001:db8:51::/64", "--gateway", "2001:db8:51::1", "one")
	digestServer(t, lanNS, "198.51.100.1:80")
	h.serve("web", []string{"--network", "one", "--ip", "198.51.100.9", "-p", "8080:80", "--ip6", "2001:db8:51::9"},
		helper, "tcpserve", ":80", "digest")
	reaches(t, lanNS, "2001:db8:51::9") // before anything of it was seen there
	h.pings("web", "198.51.100.1")
	h.pings("web", "2001:db8:51::1")
	reaches(t, lanNS, "198.51.100.9")
	reaches(t, lanNS, "2001:db8:51::9")
	h.streams("web", "198.51.100.9", lanNS, "198.51.100.1")
	h.seesHost("web")
	h.fails("takes one MAC address", "run", "--rm", "--network", "one", "--", "true")
	h.fails("rules about where it may connect to", "run", "--rm", "--egress", "deny", "--network", "one", "--", "true")
	h.ok("rm", "-f", "web")
	h.idle("next", "--network", "one")
	h.pings("next", "198.51.100.1")
}

// TestTAPInABridge: two hosts' users have TAPs in bridges on one Ethernet, on which networks are told apart by VLANs.
func TestTAPInABridge(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	newLAN(t, a)
	rootIn(t, a.ns(), "ip", "link", "add", "bx", "type", "bridge")
	t.Cleanup(func() { rootIn(t, a.ns(), "ip", "link", "del", "bx") })
	rootIn(t, a.ns(), "ip", "link", "add", "p1", "type", "veth", "peer", "name", "p1", "netns", filepath.Base(b.ns()))
	a.tap("ux")
	t.Cleanup(func() { rootIn(t, a.ns(), "ip", "link", "del", "ux") })
	for _, dev := range []string{"p0", "p1", "ux"} {
		rootIn(t, a.ns(), "ip", "link", "set", dev, "master", "bx", "up")
	}
	rootIn(t, a.ns(), "ip", "tuntap", "add", "dev", "other", "mode", "tap", "user", "nobody")
	t.Cleanup(func() { rootIn(t, a.ns(), "ip", "link", "del", "other") })
	rootIn(t, a.ns(), "ip", "link", "set", "other", "master", "bx", "up")
	rootIn(t, a.ns(), "ip", "link", "set", "bx", "up")
	rootIn(t, b.ns(), "ip", "link", "add", "bx", "type", "bridge")
	t.Cleanup(func() { rootIn(t, b.ns(), "ip", "link", "del", "bx") })
	b.tap("ux")
	t.Cleanup(func() { rootIn(t, b.ns(), "ip", "link", "del", "ux") })
	for _, dev := range []string{"p1", "ux"} {
		rootIn(t, b.ns(), "ip", "link", "set", dev, "master", "bx", "up")
	}
	rootIn(t, b.ns(), "ip", "link", "set", "bx", "up")
	if out := a.ok("uplink", "check", "ux"); !strings.Contains(out, "a TAP in the bridge bx") {
		t.Errorf("uplink check: %s", out)
	}

	a.start()
	b.start()
	a.fails("it is another user's", "network", "create", "-d", "macvlan", "-o", "parent=other", "--subnet",
		"198.51.100.0/24", "--gateway", "198.51.100.1", "x")
	for i, h := range []*host{a, b} {
		span := fmt.Sprintf(".%d/26", 64*i)
		h.ok("network", "create", "-d", "macvlan", "-o", "parent=ux", "--subnet", "198.51.100.0/24", "--gateway",
			"198.51.100.1", "--ip-range", "198.51.100"+span, "lan")
		h.docker("network", "create", "-d", "macvlan", "-o", "parent=ux.20", "--subnet", "10.20.0.0/24", "--gateway",
			"10.20.0.254", "--ip-range", "10.20.0"+span, "office")
	}
	digestServer(t, lanNS, "198.51.100.1:80")
	a.serve("one", []string{"--network", "lan", "--ip", "198.51.100.10"}, helper, "tcpserve", ":80", "digest")
	a.idle("two", "--network", "office", "--ip", "10.20.0.10")
	b.serve("far", []string{"--network", "office", "--ip", "10.20.0.70"}, helper, "tcpserve", ":80", "digest")
	b.idle("near", "--network", "lan", "--ip", "198.51.100.70")
	all := func() {
		t.Helper()
		a.pings("one", "198.51.100.1")
		a.pings("one", "198.51.100.70")
		reaches(t, lanNS, "198.51.100.10")
		reaches(t, lanNS, "198.51.100.70")
		a.streams("one", "198.51.100.10", lanNS, "198.51.100.1")
		a.pings("two", "10.20.0.70")
		b.pings("far", "10.20.0.10")
		const size = "3000000"
		if r := a.exec("two", helper, "tcpsend", "10.20.0.70:80", size); !strings.Contains(r.stdout, "same "+size) {
			t.Errorf("on the VLAN: %v", r)
		}
	}
	all()
	// A station without tags that has an address of the VLAN's network is not in it.
	rootIn(t, lanNS, "ip", "addr", "add", "10.20.0.100/24", "dev", "lan0")
	if a.ping("two", "10.20.0.100") == nil {
		t.Error("who has no tag is in the VLAN")
	}
	out := a.ok("network", "inspect", "--verbose", "lan")
	if !regexp.MustCompile(`"Role": "uplink"`).MatchString(out) || !strings.Contains(out, `"Learned"`) {
		t.Errorf("what is learned at the uplink is not shown: %s", out)
	}
	a.tagsForeign(b, "near")
	// Nobody outside reaches the host by the network's gateway.
	gateway := regexp.MustCompile(`\b169\.254\.\d+\.\d+\b`).FindString(a.exec("one", "ip", "route").stdout)
	rootIn(t, lanNS, "ip", "addr", "add", "169.254.0.1/16", "dev", "lan0")
	ping := exec.Command("nsenter", "--net="+lanNS, "ping", "-c1", "-W1", gateway)
	if out, err := ping.CombinedOutput(); gateway == "" || err == nil {
		t.Errorf("the gateway %q answers to the outside: %s", gateway, out)
	}

	// The device goes, and comes back.
	rootIn(t, a.ns(), "ip", "link", "del", "ux")
	eventually(t, func() error {
		if log := a.logText(); !strings.Contains(log, "the uplink is gone") {
			return fmt.Errorf("nothing is said of the device: %s", log)
		}
		return nil
	})
	a.fails("usernet uplink check ux", "network", "create", "-d", "macvlan", "-o", "parent=ux.30", "--subnet",
		"10.30.0.0/24", "gone")
	a.tap("ux")
	rootIn(t, a.ns(), "ip", "link", "set", "ux", "master", "bx", "up")
	all()
	a.ok("rm", "-f", "one", "two")
	a.ok("network", "rm", "lan", "office")
}

// unroutedWays are the commands by which the host becomes a router for a device that can be used.
func (h *host) unroutedWays(device string) (list []string) {
	h.t.Helper()
	out := h.ok("uplink", "check", device)
	for line := range strings.Lines(out) {
		if command := strings.TrimSpace(line); strings.HasPrefix(command, "sysctl") {
			list = append(list, command)
		}
	}
	if len(list) != 2 {
		h.t.Errorf("not two commands, for IPv4 and IPv6: %s", out)
	}
	return list
}

// TestRoutedTAP: containers of a subnet of their own, which the host routes to, are reached from other hosts by one
// route.
func TestRoutedTAP(t *testing.T) {
	h := newHost(t, 1)
	h.tap("rx")
	t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "rx") })
	if r := h.fails("cannot be used yet", "uplink", "check", "rx"); !strings.Contains(r.stdout, "ip addr add") {
		t.Errorf("uplink check: %v", r)
	}
	rootIn(t, h.ns(), "ip", "addr", "add", "203.0.113.1/24", "dev", "rx")
	rootIn(t, h.ns(), "ip", "link", "set", "rx", "up")
	rootIn(t, h.ns(), "ip", "addr", "add", "2001:db8:113::1/64", "dev", "rx", "nodad")
	rootIn(t, h.ns(), "sysctl", "-qw", "net.ipv4.ip_forward=0")
	for _, command := range h.unroutedWays("rx") {
		h.sys(command)
	}
	t.Cleanup(func() { rootIn(t, h.ns(), "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0") })
	const other = "/run/netns/xh-h2"
	rootIn(t, other, "ip", "route", "add", "203.0.113.0/24", "via", h.addr())
	t.Cleanup(func() { rootIn(t, other, "ip", "route", "del", "203.0.113.0/24") })
	err := hasWords(h.ok("uplink", "check", "rx"), "ip route add 203.0.113.0/24 via",
		"ip route add 2001:db8:113::/64 via", "!sysctl")
	if err != nil {
		t.Error(err)
	}
	h.start()
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=rx", "routed")
	digestServer(t, other, "192.0.2.2:80")
	h.serve("web", []string{"--network", "routed", "-p", "8080:80"}, helper, "tcpserve", ":80", "digest")
	web := h.address("web", "eth0").String()
	if !strings.HasPrefix(web, "203.0.113.") {
		t.Errorf("web has the address %s", web)
	}
	reaches(t, other, web)
	h.pings("web", "192.0.2.2")
	h.streams("web", web, other, "192.0.2.2")
	h.pings("web", "203.0.113.1")
	reaches(t, h.ns(), web)
	h.seesHost("web")
	h.stop(os.Interrupt)
	h.again()
	reaches(t, other, web)
}
