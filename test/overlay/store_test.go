package overlay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/hang"
)

// traffic pings every container of a list from every other one on another host, by name.
func (w *world) traffic(network string, names ...string) {
	w.t.Helper()
	for i, from := range names {
		for j, to := range names {
			if i != j {
				w.hosts[i].pings(from, to)
			}
		}
	}
}

// steady pings without pause until stop is called, which fails the test for each ping that was lost.
func (h *host) steady(from, to string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			if err := h.ping(from, to); err != nil {
				h.t.Errorf("under traffic: %v", err)
			}
		}
	}()
	return func() { close(quit); <-done }
}

// started are three hosts with a container each on one network, under traffic.
func started(t *testing.T, s store) (w *world, stop func()) {
	t.Helper()
	w = newWorld(t, s, 3)
	id := w.hosts[1].ok("network", "create", "-d", "overlay", "ov")
	for i, h := range w.hosts {
		h.seesNetwork("ov", id)
		h.idle(fmt.Sprintf("t%d", i+1), "--network", "ov")
	}
	w.traffic("ov", "t1", "t2", "t3")
	return w, w.hosts[0].steady("t1", "t2")
}

// TestStoreHangs stops the store's process without a word (SIGSTOP), for longer than its sessions last.
func TestStoreHangs(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w, stop := started(t, s)
		defer stop()
		signal := func(sig syscall.Signal) {
			if err := syscall.Kill(-w.server.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		signal(syscall.SIGSTOP)
		hang.Stop(t, w.server.Process.Pid)
		resumed := false
		defer func() {
			if !resumed {
				signal(syscall.SIGCONT)
			}
		}()
		began := time.Now()
		if r := w.hosts[0].fails("", "network", "create", "-d", "overlay", "other"); r.took > 10*time.Second {
			t.Errorf("the refusal took %v", r.took)
		}
		w.hosts[1].idle("t4", "--network", "ov")
		w.hosts[0].pings("t1", "t4") // once hosts have noticed that the store is away, they tell each other
		within(t, time.Minute, func() error {
			if left := 20*time.Second - time.Since(began); left > 0 {
				return fmt.Errorf("%v of the silence are left", left)
			}
			return nil
		})
		signal(syscall.SIGCONT)
		resumed = true
		w.each(func(h *host) { h.seesContainers("ov", "t1", "t2", "t3", "t4") })
		w.hosts[2].idle("t5", "--network", "ov")
		w.hosts[0].pings("t1", "t5")
		w.hosts[0].creates("other")
	}, "etcd", "zookeeper")
}

// TestStoreCompacted has etcd forget the changes that a host which was cut off from it has missed.
func TestStoreCompacted(t *testing.T) {
	w, stop := started(t, stores[0])
	defer stop()
	c := w.hosts[2]
	unblock := c.withoutStore()
	w.hosts[0].ok("network", "create", "-d", "overlay", "missed")
	w.hosts[1].idle("t4", "--network", "ov")
	w.hosts[0].pings("t1", "t4")
	etcdctl(t, "compact", fmt.Sprint(revisionOfEtcd(t)))
	unblock()
	c.seesContainers("ov", "t1", "t2", "t3", "t4")
	c.pings("t3", "t4")
	eventually(t, func() error {
		if out := c.ok("network", "ls"); !strings.Contains(out, "missed") {
			return fmt.Errorf("host 3 does not see the network that it missed: %s", out)
		}
		return nil
	})
}

// etcdctl runs etcd's client on the store's host.
func etcdctl(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("nsenter",
		append([]string{"--net=/run/netns/xh-h4", "etcdctl", "--endpoints", storeHost + ":2379"}, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// revisionOfEtcd is how many changes etcd has seen.
func revisionOfEtcd(t testing.TB) (revision int) {
	t.Helper()
	status := etcdctl(t, "endpoint", "status", "--write-out", "fields")
	if _, text, ok := strings.Cut(status, `"Revision" : `); !ok {
		t.Fatal(status)
	} else if _, err := fmt.Sscan(text, &revision); err != nil {
		t.Fatal(status)
	}
	return revision
}

// withoutStore cuts a host off from the store, and from nothing else, until unblock is called or the test ends.
func (h *host) withoutStore() (unblock func()) {
	h.t.Helper()
	rootIn(h.t, h.ns(), "nft", "table ip nostore {\n chain out { type filter hook output priority 0; ip daddr "+storeHost+
		" drop; }\n}")
	blocked := true
	unblock = func() {
		if blocked {
			rootIn(h.t, h.ns(), "nft", "delete table ip nostore")
			blocked = false
		}
	}
	h.t.Cleanup(unblock)
	return unblock
}

// TestStoreRestored puts etcd back to an older backup under traffic. What the backup lacks is there again on all hosts
// and in the store: a network with containers and one without. What was removed since does not come back. The host that
// made the networks reaches the store when others have put theirs again, and the store has seen more changes than ever.
func TestStoreRestored(t *testing.T) {
	w, stop := started(t, stores[0])
	defer stop()
	a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
	backup := filepath.Join(w.dir, "backup")
	etcdctl(t, "snapshot", "save", backup)
	ids := map[string]string{}
	for _, name := range []string{"used", "unused"} {
		ids[name] = a.ok("network", "create", "-d", "overlay", name)
		w.each(func(h *host) { h.seesNetwork(name, ids[name]) })
	}
	b.idle("t4", "--network", "ov")
	c.idle("t5", "--network", "used")
	c.ok("rm", "-f", "t3")
	a.seesContainers("used", "t5")
	a.seesContainers("ov", "t1", "t2", "t4")
	inStore := func(what ...string) {
		t.Helper()
		eventually(t, func() error {
			keys := etcdctl(t, "get", "--prefix", "/usernet/", "--keys-only")
			for _, key := range what {
				if !strings.Contains(keys, key) {
					return fmt.Errorf("the store does not have %s:\n%s", key, keys)
				}
			}
			return nil
		})
	}
	addrs := []string{"/" + b.address("t4", "eth0").String(), "/" + c.address("t5", "eth0").String()}
	inStore(addrs...)
	before := revisionOfEtcd(t)

	unblock := a.withoutStore()
	w.kill()
	if err := os.RemoveAll(filepath.Join(w.dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	peer := "http://" + storeHost + ":2380"
	etcdctl(t, "snapshot", "restore", backup, "--name", "s1", "--data-dir", filepath.Join(w.dir, "etcd"),
		"--initial-cluster", "s1="+peer, "--initial-advertise-peer-urls", peer)
	w.restart()
	inStore(addrs...)
	for revisionOfEtcd(t) <= before {
		etcdctl(t, "put", "/another/program", "writes")
	}
	unblock()

	inStore("/nets/"+ids["used"], "/nets/"+ids["unused"])
	w.each(func(h *host) {
		h.seesContainers("ov", "t1", "t2", "t4")
		h.seesContainers("used", "t5")
		for name, id := range ids {
			h.seesNetwork(name, id)
		}
	})
	a.idle("t6", "--network", "used")
	b.idle("t7", "--network", "unused")
	c.idle("t8", "--network", "unused")
	a.pings("t6", "t5")
	b.pings("t7", "t8")
	a.creates("other")
}
