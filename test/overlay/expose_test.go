package overlay

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// behind is where a server is that host 2 alone reaches: on an interface of the host's own.
const behind, behindNet = "198.51.100.7", "198.51.100.0/24"

// newServerBehind starts a server in a namespace behind a host, which hears of the addresses of its clients.
func newServerBehind(t testing.TB, h *host) {
	t.Helper()
	addNamespace(t, "xh-b", h.ns(), "lan0")
	rootIn(t, h.ns(), "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", "xh-b")
	rootIn(t, h.ns(), "ip", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	rootIn(t, h.ns(), "ip", "link", "set", "lan0", "up")
	rootIn(t, h.ns(), "ip", "-n", "xh-b", "addr", "add", behind+"/24", "dev", "eth0")
	rootIn(t, h.ns(), "ip", "-n", "xh-b", "link", "set", "eth0", "up")
	for _, args := range [][]string{{"udpserve", ":80", "addr"}, {"tcpserve", ":80", "addr"}} {
		cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/xh-b", helper}, args...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// reachesBehind waits until a container reaches the server by TCP, UDP and ping, from the address of the host that it
// is behind.
func (h *host) reachesBehind(name string) {
	h.t.Helper()
	h.reachesFrom(name, behind, "198.51.100.1")
}

// reachesFrom waits until a container reaches a server at an address by TCP, UDP and ping, which sees it at another
// one.
func (h *host) reachesFrom(name, server, seenAt string) {
	h.t.Helper()
	for _, dial := range []string{"tcpdial", "udpdial"} {
		eventually(h.t, func() error {
			if r := h.exec(name, helper, dial, server+":80"); !strings.Contains(r.stdout, seenAt+":") {
				return fmt.Errorf("no answer from behind: %v", r)
			}
			return nil
		})
	}
	h.pings(name, server)
}

// hasNoWay waits until a container does not reach the server.
func (h *host) hasNoWay(name string) {
	h.t.Helper()
	eventually(h.t, func() error {
		if r := h.exec(name, helper, "tcpdial", behind+":80"); r.code == 0 && strings.Contains(r.stdout, "198.51.100") {
			return fmt.Errorf("it is reached: %v", r)
		}
		return nil
	})
}

// TestExpose has containers of other hosts reach a server behind a host: where they accept that, what the policies
// allow alone, for as long as the host exposes it and is there.
func TestExpose(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newStore(t, s)
		for n := range 3 {
			w.hosts = append(w.hosts, newHost(t, n+1))
		}
		a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
		newServerBehind(t, b)
		a.launch(append(s.flags(w), "--cluster-accept-routes", "198.51.0.0/16")...)
		b.launch(s.flags(w)...)
		c.launch(s.flags(w)...)
		w.each(func(h *host) { h.answers() })
		ids := []string{
			a.ok("network", "create", "-d", "overlay", "ov"),
			a.ok("network", "create", "-d", "overlay", "--egress", "deny", "--allow-egress", behind+":80/udp",
				"closed"),
		}
		w.each(func(h *host) { h.seesNetwork("ov", ids[0]); h.seesNetwork("closed", ids[1]) })
		a.idle("t1", "--network", "ov")
		a.idle("t2", "--network", "closed")
		c.idle("t3", "--network", "ov")
		a.hasNoWay("t1")

		b.ok("cluster", "expose", behindNet)
		a.reachesBehind("t1")
		r := a.try("trace", "--timeout", "20s", "t1", behind+":80")
		if err := hasWords(r.stdout, behindNet+" is behind host", "sealed between the hosts", "reached: connected",
			"yes: "); err != nil || r.code != 0 {
			t.Errorf("trace: %v: %v", err, r)
		}
		c.hasNoWay("t3") // whose host does not accept it
		if r := a.exec("t2", helper, "tcpdial", behind+":80"); !strings.Contains(r.stdout, "ECONNREFUSED") {
			t.Errorf("the policy of the container's network is not asked: %v", r)
		}
		if r := a.exec("t2", helper, "udpdial", behind+":80"); !strings.Contains(r.stdout, "198.51.100.1") {
			t.Errorf("what the policy allows is not reached: %v", r)
		}
		if ls := a.ok("cluster", "ls"); !strings.Contains(ls, behindNet) || strings.Contains(ls, behindNet+"!") {
			t.Errorf("cluster ls does not show the route:\n%s", ls)
		}
		if ls := c.ok("cluster", "ls"); !strings.Contains(ls, behindNet+"!") {
			t.Errorf("cluster ls does not show that the route is not accepted:\n%s", ls)
		}

		c.fails("which host", "cluster", "expose", "198.51.100.128/25")
		c.fails("too large", "cluster", "expose", "0.0.0.0/0")
		c.fails("something else on each host", "cluster", "expose", "169.254.0.0/16")
		c.fails("which is network", "cluster", "expose", "10.0.0.0/8")
		c.fails("is not exposed", "cluster", "unexpose", behindNet)

		b.ok("cluster", "unexpose", behindNet)
		a.hasNoWay("t1")
		b.ok("cluster", "expose", behindNet)
		a.reachesBehind("t1")
		b.stop(syscall.SIGTERM)
		a.hasNoWay("t1")
		b.again() // and exposes again what it did
		a.reachesBehind("t1")

		b.stop(syscall.SIGKILL)
		a.sees(map[*host]string{b: "down"})
		within(t, 10*time.Second, func() error { // it is told so, and does not wait for an answer
			if r := a.exec("t1", helper, "tcpdial", behind+":80"); r.took > 5*time.Second ||
				!slices.ContainsFunc([]string{"ENETUNREACH", "EHOSTUNREACH"}, func(e string) bool {
					return strings.Contains(r.stdout, e)
				}) {
				return fmt.Errorf("a subnet behind a host that is gone: %v", r)
			}
			return nil
		})
		if r := a.try("trace", "t1", behind+":80"); r.code == 0 || !strings.Contains(r.stdout, "is not heard of") {
			t.Errorf("trace: %v", r)
		}
	}, "etcd")
}

// TestExposeUplink has containers of one host reach those that another host has on a physical network, and the stations
// there: by a TAP that the host routes to, and by one in a bridge that the host has an address on.
func TestExposeUplink(t *testing.T) {
	w := newStore(t, store{name: "gossip"})
	a, b := newHost(t, 1), newHost(t, 2)
	w.hosts = append(w.hosts, a, b)
	l := newLAN(t, b)
	b.routedTAP("rx")
	b.tap("ux")
	t.Cleanup(func() { rootIn(t, b.ns(), "ip", "link", "del", "ux") })
	rootIn(t, b.ns(), "ip", "link", "add", "bx", "type", "bridge")
	t.Cleanup(func() { rootIn(t, b.ns(), "ip", "link", "del", "bx") })
	for _, dev := range []string{"p0", "ux"} {
		rootIn(t, b.ns(), "ip", "link", "set", dev, "master", "bx", "up")
	}
	rootIn(t, b.ns(), "ip", "addr", "add", "198.51.100.2/24", "dev", "bx")
	rootIn(t, b.ns(), "ip", "link", "set", "bx", "up")
	l.answers("198.51.100.1:80")

	a.launch(append(w.gossipFlags(), "--cluster-accept-routes", "203.0.113.0/24,198.51.100.0/24")...)
	b.launch(w.gossipFlags()...)
	w.each(func(h *host) { h.answers() })
	id := a.ok("network", "create", "-d", "overlay", "ov")
	w.each(func(h *host) { h.seesNetwork("ov", id) })
	a.idle("t1", "--network", "ov")
	b.ok("network", "create", "-d", "macvlan", "-o", "parent=rx", "routed")
	b.ok("network", "create", "-d", "macvlan", "-o", "parent=ux", "--subnet", "198.51.100.0/24", "--gateway",
		"198.51.100.1", "lan")
	for name, args := range map[string][]string{
		"far1": {"--network", "routed", "--ip", "203.0.113.9"}, "far2": {"--network", "lan", "--ip", "198.51.100.9"},
	} {
		b.serve(name, args, "sh", "-c", helper+" udpserve :80 addr & exec "+helper+" tcpserve :80 addr")
	}
	r := a.exec("t1", helper, "tcpdial", "203.0.113.9:80")
	if r.code == 0 && strings.Contains(r.stdout, "203.0.113.1:") {
		t.Errorf("it is reached before it is exposed: %v", r)
	}
	b.ok("cluster", "expose", "203.0.113.0/24")
	b.ok("cluster", "expose", "198.51.100.0/24")
	a.reachesFrom("t1", "203.0.113.9", "203.0.113.1")
	a.reachesFrom("t1", "198.51.100.9", "198.51.100.2")
	a.reachesFrom("t1", "198.51.100.1", "198.51.100.2")
}

// answers starts servers of TCP and UDP on the station of a physical network, which say where their clients are.
func (l *lan) answers(address string) {
	l.t.Helper()
	for _, kind := range []string{"udpserve", "tcpserve"} {
		cmd := exec.Command("nsenter", "--net="+lanNS, helper, kind, address, "addr")
		if err := cmd.Start(); err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}
