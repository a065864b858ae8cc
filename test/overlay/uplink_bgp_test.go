package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unicastRouter is a BGP router on host 3 that takes sessions of host 1 and has its kernel route as it is told.
type unicastRouter struct {
	name string
	// start starts it for the length of a test. The function that it returns is called before each look at the kernel's
	// routes, by those that leave the kernel to others.
	start func(t testing.TB) func()
}

var unicastRouters = []unicastRouter{
	{"frr", func(t testing.TB) func() { newRouter(t); return func() {} }},
	{"bird", startBird},
	{"gobgp", startGoBGP},
}

// routerProcess starts a program on host 3 for the length of a test.
func routerProcess(t testing.TB, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", append([]string{"--net=" + routerNS}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		_ = log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s:\n%s", args[0], tail(string(text), 40))
		}
	})
}

// configuration is a file with text.
func configuration(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func startBird(t testing.TB) func() {
	t.Helper()
	config := configuration(t, "bird.conf", `
		router id 192.0.2.3;
		protocol device { }
		protocol direct { ipv4; ipv6; }
		protocol kernel { ipv4 { export where source = RTS_BGP; }; }
		protocol kernel { ipv6 { export where source = RTS_BGP; }; }
		protocol bgp host1 {
			local 192.0.2.3 as 65000;
			neighbor 192.0.2.1 as 65000;
			passive on;
			ipv4 { import all; export none; };
			ipv6 { import all; export none; };
		}`)
	routerProcess(t, "bird", "-f", "-c", config, "-s", filepath.Join(filepath.Dir(config), "ctl"))
	return func() {}
}

// startGoBGP: what gobgpd is told it gives to zebra or to nobody, so the test has the kernel route as its table says.
func startGoBGP(t testing.TB) func() {
	t.Helper()
	config := configuration(t, "gobgpd.toml", `
		[global.config]
		as = 65000
		router-id = "192.0.2.3"
		local-address-list = ["192.0.2.3"]
		[[neighbors]]
		[neighbors.config]
		neighbor-address = "192.0.2.1"
		peer-as = 65000
		[neighbors.transport.config]
		passive-mode = true
		[[neighbors.afi-safis]]
		[neighbors.afi-safis.config]
		afi-safi-name = "ipv4-unicast"
		[[neighbors.afi-safis]]
		[neighbors.afi-safis.config]
		afi-safi-name = "ipv6-unicast"
		`)
	routerProcess(t, "gobgpd", "-f", config)
	const protocol = "186" // RTPROT_BGP of linux/rtnetlink.h
	flush := func(family string) { rootIn(t, routerNS, "ip", "-"+family, "route", "flush", "proto", protocol) }
	t.Cleanup(func() { flush("4"); flush("6") })
	return func() {
		for _, family := range []string{"4", "6"} {
			text, err := exec.Command("nsenter", "--net="+routerNS, "gobgp", "global", "rib", "-a", "ipv"+family,
				"-j").Output()
			var table map[string][]struct {
				Attrs []struct{ NextHop string }
			}
			if err != nil || json.Unmarshal(text, &table) != nil {
				return // it is not up yet: the caller looks again
			}
			flush(family)
			for prefix, paths := range table {
				for _, a := range paths[0].Attrs {
					if a.NextHop != "" {
						rootIn(t, routerNS, "ip", "-"+family, "route", "replace", prefix, "via", a.NextHop, "proto",
							protocol)
					}
				}
			}
		}
	}
}

// Who is behind the router: a machine whose way back to containers is the router's route alone.
const farNS, farAddr, farAddr6 = "/run/netns/xh-far", "10.66.0.2", "2001:db8:66::2"

// newFarMachine puts it there for the length of a test. Host 1 knows the way by a route of its administrator's.
func newFarMachine(t testing.TB, h *host) {
	t.Helper()
	rootIn(t, routerNS, "ip", "netns", "add", "xh-far")
	t.Cleanup(func() { rootIn(t, routerNS, "ip", "netns", "del", "xh-far") })
	for _, line := range []string{
		"link add far0 type veth peer name eth0 netns xh-far", "addr add 10.66.0.1/24 dev far0", "link set far0 up",
		"-n xh-far addr add 10.66.0.2/24 dev eth0", "-n xh-far link set eth0 up",
		"-n xh-far route add default via 10.66.0.1",
		"addr add 2001:db8:66::1/64 dev far0 nodad", "-n xh-far addr add 2001:db8:66::2/64 dev eth0 nodad",
		"-n xh-far route add default via 2001:db8:66::1",
	} {
		rootIn(t, routerNS, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	forwards(t, routerNS)
	for prefix, via := range map[string]string{"10.66.0.0/24": routerAddr, "2001:db8:66::/64": "2001:db8::3"} {
		rootIn(t, h.ns(), "ip", "route", "add", prefix, "via", via)
		t.Cleanup(func() { rootIn(t, h.ns(), "ip", "route", "del", prefix) })
	}
}

// forwards has a namespace's kernel be a router, of IPv6 for the length of a test: other tests have it follow
// routers.
func forwards(t testing.TB, ns string) {
	t.Helper()
	rootIn(t, ns, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	t.Cleanup(func() { rootIn(t, ns, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0") })
}

// routedTAP gives host h's user a TAP that the host routes to: 203.0.113.0/24 and 2001:db8:113::/64.
func (h *host) routedTAP(name string) {
	h.t.Helper()
	h.tap(name)
	h.t.Cleanup(func() { rootIn(h.t, h.ns(), "ip", "link", "del", name) })
	rootIn(h.t, h.ns(), "ip", "addr", "add", "203.0.113.1/24", "dev", name)
	rootIn(h.t, h.ns(), "ip", "addr", "add", "2001:db8:113::1/64", "dev", name, "nodad")
	rootIn(h.t, h.ns(), "ip", "link", "set", name, "up")
	forwards(h.t, h.ns())
}

// TestRoutesOverUplink: routers of three kinds are told by BGP of containers on a TAP that the host routes to, by IPv4
// and by IPv6 in the same session, and a machine behind the router and the containers reach each other, each at its own
// address.
func TestRoutesOverUplink(t *testing.T) {
	for _, router := range unicastRouters {
		t.Run(router.name, func(t *testing.T) {
			h := newHost(t, 1)
			h.routedTAP("rx")
			newFarMachine(t, h)
			digestServer(t, farNS, farAddr+":80")
			look := router.start(t)
			// routed waits until the router's kernel has a route to the host, or has none.
			routed := func(prefix string, want bool) {
				t.Helper()
				eventually(t, func() error {
					look()
					family, via := "-4", h.addr()
					if strings.Contains(prefix, ":") {
						family, via = "-6", "2001:db8::1"
					}
					out := rootIn(t, routerNS, "ip", family, "route", "show", "exact", prefix)
					if strings.Contains(out, "via "+via+" ") != want {
						return fmt.Errorf("wanted a route to %s: %v; there is %q: %s", prefix, want, out, h.try("info"))
					}
					return nil
				})
			}
			h.start(routerFlags()...)
			h.session(true)
			r := h.try("network", "create", "-d", "macvlan", "-o", "parent=rx", "four")
			if r.code != 0 || r.stderr != "" {
				t.Errorf("without --ipv6 the device's IPv6 address does not matter: %v", r)
			}
			h.ok("network", "rm", "four")
			for _, kind := range []string{"endpoints", "subnets"} {
				h.ok("network", "create", "-d", "macvlan", "--ipv6", "-o", "parent=rx", "-o", "usernet.bgp="+kind,
					"routed")
				h.serve("web", []string{"--network", "routed"}, helper, "tcpserve", ":80", "digest")
				h.serve("who", []string{"--network", "routed"}, helper, "tcpserve", ":80", "addr")
				web, who := h.address("web", "eth0").String(), h.address("who", "eth0").String()
				web6, who6 := h.address6("web"), h.address6("who")
				prefixes := []string{web + "/32", who + "/32", web6 + "/128", who6 + "/128"}
				if kind == "subnets" {
					prefixes = []string{"203.0.113.0/24", "2001:db8:113::/64"}
				}
				all := func() {
					t.Helper()
					for _, p := range prefixes {
						routed(p, true)
					}
					reaches(t, farNS, web)
					reaches(t, farNS, web6)
					h.pings("web", farAddr)
					h.pings("web", farAddr6)
					h.streams("web", web, farNS, farAddr)
					for to, from := range map[string]string{who + ":80": farAddr, "[" + who6 + "]:80": farAddr6} {
						if out := rootIn(t, farNS, helper, "tcpdial", to); !strings.Contains(out, from) {
							t.Errorf("the container does not see its client's address %s: %s", from, out)
						}
					}
				}
				all()
				h.seesAddress("web", web)
				h.stop(syscall.SIGKILL)
				for _, p := range prefixes {
					routed(p, false)
				}
				h.again()
				all()
				h.ok("rm", "-f", "web", "who")
				for _, p := range prefixes {
					routed(p, false)
				}
				h.ok("network", "rm", "routed")
			}
		})
	}
	t.Run("what no route leads to is refused", func(t *testing.T) {
		h := newHost(t, 1)
		h.tap("ux")
		t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "ux") })
		rootIn(t, h.ns(), "ip", "link", "set", "ux", "up")
		args := []string{"network", "create", "-d", "macvlan", "-o", "parent=ux", "--subnet", "198.51.100.0/24", "-o",
			"usernet.bgp=endpoints"}
		h.start()
		h.fails("--bgp-neighbor", append(args, "n")...)
		h.stop(syscall.SIGTERM)
		h.start(routerFlags()...)
		h.fails("usernet.bgp_next_hop", append(args, "n")...)
		h.ok(append(args, "-o", "usernet.bgp_next_hop=192.0.2.9", "n")...)
	})
}

// address6 is a container's IPv6 address on the network routed.
func (h *host) address6(name string) string {
	h.t.Helper()
	return h.ok("inspect", "-f", "{{.NetworkSettings.Networks.routed.GlobalIPv6Address}}", name)
}

// seesAddress checks that a server behind the router sees a container's own address.
func (h *host) seesAddress(name, address string) {
	h.t.Helper()
	server := exec.Command("nsenter", "--net="+farNS, helper, "tcpserve", farAddr+":81", "addr")
	if err := server.Start(); err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	eventually(h.t, func() error {
		if r := h.exec(name, helper, "tcpdial", farAddr+":81"); !strings.Contains(r.stdout, address) {
			return fmt.Errorf("the server does not see %s: %v", address, r)
		}
		return nil
	})
}
