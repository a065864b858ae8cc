package overlay

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// reachesAll waits until a container reaches another one by TCP, UDP and ping, or is refused all of that.
func (h *host) reachesAll(name, target string, want bool) {
	h.t.Helper()
	for _, command := range [][]string{
		{"timeout", "3", helper, "tcpdial", target + ":80"},
		{"timeout", "3", helper, "udpdial", target + ":80"},
		{"ping", "-c", "1", "-W", "2", target},
	} {
		eventually(h.t, func() error {
			if r := h.exec(name, command...); (r.code == 0 && !strings.Contains(r.stdout, "ETIMEDOUT")) != want {
				return fmt.Errorf("want %v: %v", want, r)
			}
			return nil
		})
	}
}

// outside changes where the containers of a network may connect to outside, which counts on all hosts, also for
// containers that run.
func outside(t *testing.T, a, b *host, id string) {
	t.Helper()
	const far = "192.0.2.3"
	digestServer(t, "/run/netns/xh-h3", far+":80")
	reaches := func(name string, h *host, want bool) {
		t.Helper()
		eventually(t, func() error {
			r := h.exec(name, helper, "tcpdial", far+":80", "2s")
			if strings.HasPrefix(r.stdout, "ok") != want || (h.ping(name, far) == nil) != want {
				return fmt.Errorf("%s: %s is reached: want %v: %v", name, far, want, r)
			}
			return nil
		})
	}
	each := func(want bool) {
		t.Helper()
		reaches("near", a, want)
		reaches("far", b, want)
	}
	each(true)
	a.ok("network", "update", "--egress", "deny", "shop")
	each(false)
	a.pings("near", "far")
	b.ok("network", "update", "--allow-egress", "192.0.2.0/24", "--allow-egress", "example.org:443", "shop")
	each(true)
	b.stop(syscall.SIGKILL)
	a.ok("network", "update", "--allow-egress", "", "shop")
	b.again()
	each(false)
	b.ok("update", "--egress", "allow", "far") // one container's own
	reaches("far", b, true)
	reaches("near", a, false)
	b.ok("update", "--egress", "", "far")
	reaches("far", b, false)
	for _, h := range []*host{a, b} {
		if out := h.ok("network", "inspect", "shop"); !strings.Contains(out, `"usernet.egress": "deny"`) ||
			strings.Contains(out, "usernet.allow_egress") || !strings.Contains(out, id) {
			t.Errorf("host %d: %s", h.n, out)
		}
	}
	a.fails("egress rule", "network", "update", "--allow-egress", "x:y:z", "shop")
	b.fails("one or more flags", "network", "update", "shop")
}

// TestPolicy is Calico's basic demonstration, with a frontend on another host than the backend and than on it: nobody
// reaches the backend, then the frontend does by its label, then who is on a network besides.
func TestPolicy(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		id := a.ok("network", "create", "-d", "overlay", "shop")
		b.seesNetwork("shop", id)
		b.ok("network", "create", "lab")
		a.serve("backend", []string{"--network", "shop", "--label", "app=backend"}, "sh", "-c",
			helper+" udpserve :80 addr & exec "+helper+" tcpserve :80 addr")
		target := a.address("backend", "eth0").String()
		a.idle("near", "--network", "shop", "--label", "app=frontend")
		b.idle("far", "--network", "shop", "--label", "app=frontend")
		b.idle("other", "--network", "shop", "--network", "lab")
		each := func(near, far, other bool) {
			t.Helper()
			a.reachesAll("near", target, near)
			b.reachesAll("far", target, far)
			b.reachesAll("other", target, other)
		}
		each(true, true, true)
		a.ok("network", "policy", "shop", "default deny")
		each(false, false, false)
		a.ok("network", "policy", "shop", "default deny", "allow app=frontend -> app=backend")
		each(true, true, false)
		b.ok("update", "--label-add", "app=frontend", "other") // labels of containers that run count on all hosts
		b.reachesAll("other", target, true)
		b.ok("update", "--label-rm", "app", "other")
		b.reachesAll("other", target, false)
		a.ok("network", "policy", "shop", "default deny", "allow network=lab -> name=backend")
		each(false, false, true)
		a.ok("network", "policy", "shop", "deny name=far -> *")
		each(true, false, true)
		a.fails("policy rule", "network", "policy", "shop", "permit all")
		eventually(t, func() error {
			log := b.logText()
			if !strings.Contains(log, "neighbour refused") || !strings.Contains(log, "deny name=far -> *") {
				return fmt.Errorf("the refusal is not logged with its rule")
			}
			return nil
		})
		b.ok("network", "policy", "shop", "--clear") // the host that did not make the network
		each(true, true, true)
		outside(t, a, b, id)
	}, "etcd")
}

// TestChangesAtOneTime has two hosts change a network's policy and its egress at the same time, again and again. Both
// changes stay, on both hosts.
func TestChangesAtOneTime(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		id := a.ok("network", "create", "-d", "overlay", "shop")
		b.seesNetwork("shop", id)
		for round := range 8 {
			policy, egress := fmt.Sprintf("deny name=r%d -> *", round), []string{"deny", "allow"}[round%2]
			var both sync.WaitGroup
			var done [2]result
			both.Go(func() { done[0] = a.try("network", "policy", "shop", policy) })
			both.Go(func() { done[1] = b.try("network", "update", "--egress", egress, "shop") })
			both.Wait()
			for _, r := range done {
				if r.code != 0 {
					t.Fatal(r)
				}
			}
			for _, h := range w.hosts {
				eventually(t, func() error {
					got := h.ok("network", "inspect", "shop")
					if !strings.Contains(got, fmt.Sprintf("deny name=r%d ", round)) ||
						!strings.Contains(got, fmt.Sprintf(`"usernet.egress": %q`, egress)) {
						return fmt.Errorf("round %d: host %d has %s, want %q and %s", round, h.n, got, policy, egress)
					}
					return nil
				})
			}
		}
	}, "etcd", "gossip")
}
