package overlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// sees waits until a host sees others in these states, by their numbers; "" is for one that is not in the cluster.
func (h *host) sees(states map[*host]string) {
	h.t.Helper()
	eventually(h.t, func() error {
		for o, want := range states {
			state := ""
			for _, x := range h.cluster().Hosts {
				if len(x.Addrs) > 0 && strings.HasPrefix(x.Addrs[0], o.addr()+":") {
					state = x.State
				}
			}
			if state != want {
				return fmt.Errorf("host %d sees host %d as %q, want %q: %+v", h.n, o.n, state, want, h.cluster().Hosts)
			}
		}
		return nil
	})
}

// answers are the addresses that a container is told for a name, in their order.
func (h *host) resolves(container, name string) []string {
	h.t.Helper()
	r := h.exec(container, "nslookup", name)
	var list []string
	_, answer, _ := strings.Cut(r.stdout, "Name:")
	for _, m := range regexp.MustCompile(`Address[^:]*: *([0-9.]+)`).FindAllStringSubmatch(answer, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestDeadHostsComeLast kills one of two hosts whose containers have the same name: it is answered all the same,
// behind that of the living one, until the host is taken out of the cluster.
func TestDeadHostsComeLast(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
		id := a.ok("network", "create", "-d", "overlay", "ov")
		w.each(func(h *host) { h.seesNetwork("ov", id) })
		a.idle("t1", "--network", "ov", "--network-alias", "web")
		b.idle("t2", "--network", "ov", "--network-alias", "web")
		c.idle("t3", "--network", "ov")
		c.pings("t3", "t1")
		c.pings("t3", "t2")
		living, dead := b.address("t2", "eth0").String(), a.address("t1", "eth0").String()
		a.stop(syscall.SIGKILL)
		t.Cleanup(a.again) // its containers are to be removed
		c.sees(map[*host]string{a: "down", b: "up"})
		inOrder := 0
		eventually(t, func() error { // ten times one after another: what is of one kind is told in any order
			if got := strings.Join(c.resolves("t3", "web"), " "); got != living+" "+dead {
				inOrder = 0
				return fmt.Errorf("web is %s, want %s before %s", got, living, dead)
			}
			if inOrder++; inOrder < 10 {
				return fmt.Errorf("web was in order %d times", inOrder)
			}
			return nil
		})
		var gone string
		for _, x := range c.cluster().Hosts {
			if strings.HasPrefix(x.Addrs[0], a.addr()+":") {
				gone = x.ID
			}
		}
		c.ok("cluster", "leave", gone)
		b.sees(map[*host]string{a: "", c: "up"})
		c.seesContainers("ov", "t2", "t3")
		eventually(t, func() error {
			if got := strings.Join(c.resolves("t3", "web"), " "); got != living {
				return fmt.Errorf("web is %s, want %s", got, living)
			}
			return nil
		})
	}, "etcd")
}

// TestLeave takes a host out of the cluster, and in again.
func TestLeave(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		id := a.ok("network", "create", "-d", "overlay", "ov")
		b.seesNetwork("ov", id)
		a.idle("t1", "--network", "ov")
		b.idle("t2", "--network", "ov")
		b.pings("t2", "t1")
		a.fails("are on networks that span hosts", "cluster", "leave")
		b.fails("is heard of", "cluster", "leave", a.cluster().Host)
		b.fails("is not in the cluster", "cluster", "leave", "nosuch")
		a.ok("rm", "-f", "t1")
		a.ok("cluster", "leave")
		b.sees(map[*host]string{a: ""})
		a.stop(syscall.SIGTERM)
		a.again()
		b.sees(map[*host]string{a: "up"})
		a.idle("t1", "--network", "ov")
		b.pings("t2", "t1")
	}, "etcd", "gossip")
}

// TestAnotherKey has a host join with another key than the others', which does not let it in; with theirs it does.
func TestAnotherKey(t *testing.T) {
	w := newStore(t, store{name: "gossip"})
	flags := w.gossipFlags()
	other, err := exec.Command(usernet, "cluster", "key").Output()
	if err = errors.Join(err, os.WriteFile(filepath.Join(w.dir, "other"), other, 0o644)); err != nil {
		t.Fatal(err)
	}
	a, b := newHost(t, 1), newHost(t, 2)
	a.start(flags...)
	b.start("--cluster-join", "192.0.2.1", "--cluster-key", filepath.Join(w.dir, "other"))
	for _, h := range []*host{a, b} {
		eventually(t, func() error {
			if notes := strings.Join(h.cluster().Notes, "\n"); !strings.Contains(notes, "key") {
				return fmt.Errorf("host %d does not say that there is another key: %q", h.n, notes)
			}
			return nil
		})
	}
	if n := len(a.cluster().Hosts); n != 1 {
		t.Errorf("host 1 sees %d hosts", n)
	}
	b.stop(syscall.SIGTERM)
	b.start(flags...)
	a.sees(map[*host]string{b: "up"})
}

// TestLinksAndEgress: a link leads to another host's container, and what a network's containers may reach is the same
// on each host.
func TestLinksAndEgress(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
		id := a.ok("network", "create", "-d", "overlay", "--egress", "deny", "--allow-egress", c.addr()+":8080",
			"closed")
		b.seesNetwork("closed", id)
		c.serve("web", []string{"-p", "8080:80", "-p", "8081:80"}, helper, "tcpserve", ":80", "addr")
		a.idle("t1", "--network", "closed")
		b.idle("t2", "--network", "closed", "--link", "t1:db")
		b.pings("t2", "db")
		a.pings("t1", "t2")
		for h, name := range map[*host]string{a: "t1", b: "t2"} {
			if r := h.exec(name, helper, "tcpdial", c.addr()+":8080"); !strings.Contains(r.stdout, h.addr()) {
				t.Errorf("what is allowed is not reached: %v", r)
			}
			if r := h.exec(name, helper, "tcpdial", c.addr()+":8081"); !strings.Contains(r.stdout, "ECONNREFUSED") {
				t.Errorf("what is not allowed is reached: %v", r)
			}
		}
	}, "etcd")
}
