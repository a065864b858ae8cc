package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is what `usernet cluster inspect` shows, as far as tests look at it.
type cluster struct {
	Host  string
	Drops map[string]uint64
	Notes []string
	Hosts []struct {
		ID, Name, State, Path, Via string
		Addrs                      []string
		PathMTU                    int
		Answers                    bool
	}
}

func (h *host) cluster() cluster {
	h.t.Helper()
	var list []cluster
	out := h.ok("cluster", "inspect")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		h.t.Fatalf("cluster inspect: %v: %s", err, out)
	}
	return list[0]
}

// TestNetworkOptions is what networks on one host can do, on two.
func TestNetworkOptions(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		id := a.ok("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254",
			"--ipv6", "--subnet", "fd77::/64", "--label", "x=y", "wide")
		b.seesNetwork("wide", id)
		a.idle("t1", "--network", "wide", "--ip", "10.77.0.77", "--ip6", "fd77::77", "--network-alias", "db")
		b.idle("t2", "--network", "wide", "--ip", "10.77.0.78")
		b.pings("t2", "db")
		b.pings("t2", "fd77::77")
		b.pings("t2", "10.77.0.254") // the gateway of its own host
		eventually(t, func() error {
			r := b.try("run", "--rm", "--network", "wide", "--ip", "10.77.0.77", "--", "true")
			if r.code == 0 || !strings.Contains(r.stderr, "Address already in use") {
				return fmt.Errorf("an address that another host's container has: %v", r)
			}
			return nil
		})
		b.fails("already exists", "network", "create", "-d", "overlay", "wide")
		b.fails("Pool overlaps", "network", "create", "-d", "overlay", "--subnet", "10.77.0.0/16", "other")
		if r := b.exec("t2", "nslookup", "10.77.0.77"); !strings.Contains(r.stdout, "t1.wide") {
			t.Errorf("the address leads to no name: %v", r)
		}
		inside := a.ok("network", "create", "-d", "overlay", "--internal", "-o", "encrypted=false", "inside")
		b.seesNetwork("inside", inside)
		a.ok("network", "connect", "inside", "t1")
		b.ok("network", "connect", "--alias", "far", "inside", "t2")
		a.pings("t1", "far.inside")
		b.ok("network", "disconnect", "inside", "t2")
		eventually(t, func() error {
			if r := a.exec("t1", "nslookup", "far"); r.code == 0 {
				return fmt.Errorf("a name of what was disconnected: %v", r)
			}
			return nil
		})
	})
}

// TestCopiedStateDirectory starts a second host on a copy of the first one's state: it becomes another host, and both
// go on.
func TestCopiedStateDirectory(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 1)
		a := w.hosts[0]
		before := a.cluster().Host
		b := newHost(t, 2)
		from, to := filepath.Join(a.dir, "state/usernet/cluster"), filepath.Join(b.dir, "state/usernet/cluster")
		text, err := os.ReadFile(filepath.Join(from, "identity.json"))
		if err == nil {
			err = os.MkdirAll(to, 0o700)
		}
		if err = errors.Join(err, os.WriteFile(filepath.Join(to, "identity.json"), text, 0o600)); err != nil {
			t.Fatal(err)
		}
		_ = filepath.WalkDir(filepath.Join(b.dir, "state"),
			func(path string, _ fs.DirEntry, _ error) error { return os.Chown(path, b.uid(), b.uid()) })
		b.start(s.flags(w)...)
		eventually(t, func() error {
			if id := b.cluster().Host; id == before {
				return fmt.Errorf("the copy still has the id %s", id)
			}
			if id := a.cluster().Host; id != before {
				t.Fatalf("the first host has become %s", id)
			}
			return nil
		})
		id := a.ok("network", "create", "-d", "overlay", "ov")
		b.seesNetwork("ov", id)
		a.idle("t1", "--network", "ov")
		b.idle("t2", "--network", "ov")
		a.pings("t1", "t2")
		b.pings("t2", "t1")
	})
}

// TestNewAddress gives a host another address while it runs.
func TestNewAddress(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		id := w.hosts[0].ok("network", "create", "-d", "overlay", "ov")
		w.each(func(h *host) { h.seesNetwork("ov", id) })
		w.hosts[0].idle("t1", "--network", "ov")
		w.hosts[2].idle("t3", "--network", "ov")
		w.hosts[0].pings("t1", "t3")
		ns := w.hosts[2].ns()
		rootIn(t, ns, "ip", "addr", "add", "192.0.2.33/24", "dev", "eth0")
		rootIn(t, ns, "ip", "addr", "del", "192.0.2.3/24", "dev", "eth0")
		rootIn(t, ns, "ip", "addr", "replace", "192.0.2.33/24", "dev", "eth0") // the second one went with the first
		rootIn(t, ns, "ip", "route", "replace", "default", "via", "192.0.2.254")
		t.Cleanup(func() {
			rootIn(t, ns, "ip", "addr", "flush", "dev", "eth0", "scope", "global")
			rootIn(t, ns, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
			rootIn(t, ns, "ip", "addr", "add", "2001:db8::3/64", "dev", "eth0", "nodad")
			rootIn(t, ns, "ip", "route", "replace", "default", "via", "192.0.2.254")
		})
		w.hosts[0].pings("t1", "t3")
		w.hosts[2].pings("t3", "t1")
	})
}

// TestAnotherAdvertisedAddress starts a host again that is to be reached at another address of the same interface,
// while the old one still works: the others go there, from containers on sealed and on plain networks.
func TestAnotherAdvertisedAddress(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 2)
		a, b := w.hosts[0], w.hosts[1]
		for _, n := range []string{"sealed", "plain"} {
			id := a.ok("network", "create", "-d", "overlay", "-o", fmt.Sprintf("encrypted=%v", n == "sealed"), n)
			b.seesNetwork(n, id)
			a.idle("a-"+n, "--network", n)
			b.idle("b-"+n, "--network", n)
		}
		rootIn(t, a.ns(), "ip", "addr", "add", "192.0.2.21/24", "dev", "eth0")
		flags := a.flags
		a.stop(syscall.SIGTERM)
		a.start(append([]string{"--cluster-advertise", "192.0.2.21"}, flags...)...)
		t.Cleanup(func() { rootIn(t, a.ns(), "ip", "addr", "del", "192.0.2.21/24", "dev", "eth0") })
		eventually(t, func() error {
			for _, o := range b.cluster().Hosts {
				if strings.HasPrefix(o.Addrs[0], "192.0.2.21:") && o.Answers && o.Path == "direct" {
					return nil
				}
			}
			return fmt.Errorf("host 1 is not reached at 192.0.2.21: %+v", b.cluster().Hosts)
		})
		port := ""
		for _, o := range a.cluster().Hosts {
			if p, is := strings.CutPrefix(o.Addrs[0], "192.0.2.21:"); is {
				port = p
			}
		}
		rootIn(t, a.ns(), "nft", fmt.Sprintf(`table inet old {
			chain input { type filter hook input priority 0; ip daddr 192.0.2.1 udp dport %s counter drop; }
		}`, port))
		t.Cleanup(func() { rootIn(t, a.ns(), "nft", "delete table inet old") })
		for _, n := range []string{"sealed", "plain"} {
			b.pings("b-"+n, "a-"+n)
			a.pings("a-"+n, "b-"+n)
		}
	}, "etcd", "gossip")
}

// TestBadInput is what a daemon says of what it cannot do.
func TestBadInput(t *testing.T) {
	h := newHost(t, 1)
	key := filepath.Join(h.dir, "key")
	if err := os.WriteFile(key, []byte("no key\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for words, flags := range map[string][]string{
		"no store is called": {"--cluster-store", "redis://192.0.2.4"},
		"it is no URL":       {"--cluster-store", "192.0.2.4:2379"},
		"two ways to the same": {"--cluster-store", "etcd://192.0.2.4", "--cluster-join", "192.0.2.2",
			"--cluster-key", key},
		"needs --cluster-key":         {"--cluster-join", "192.0.2.2"},
		"32 bytes in base64":          {"--cluster-join", "192.0.2.2", "--cluster-key", key},
		"needs --cluster-store or":    {"--cluster-advertise", "eth0"},
		"is in no cluster":            {"--docker-store", "etcd://192.0.2.4", "--cluster-store", "etcd://192.0.2.4"},
		"by etcd:// and zk://":        {"--docker-store", "consul://192.0.2.4"},
		"interface nosuch":            {"--cluster-store", "etcd://192.0.2.4", "--cluster-advertise", "nosuch"},
		"give ADDRESS or INTERFACE":   {"--cluster-store", "etcd://192.0.2.4", "--cluster-advertise", "eth0:x"},
		"other hosts cannot send to ": {"--cluster-store", "etcd://192.0.2.4", "--cluster-advertise", "0.0.0.0"},
		"cannot send to this address": {"--cluster-store", "zk://192.0.2.4", "--cluster-advertise", "255.255.255.255"},
	} {
		h.fails(words, append([]string{"serve"}, flags...)...)
	}
	h.start()
	h.fails("needs a cluster", "network", "create", "-d", "overlay", "ov")
	h.fails("is in no cluster", "cluster", "ls")
	h.stop(os.Interrupt)

	// A store that nobody answers at: the daemon starts, and says why it makes no network that spans hosts.
	h.start("--cluster-store", "etcd://192.0.2.4:2399")
	h.ok("network", "create", "local1")
	h.idle("t1", "--network", "local1")
	if r := h.fails("cannot be reached", "network", "create", "-d", "overlay", "ov"); r.took > 20*time.Second {
		t.Errorf("the refusal took %v", r.took)
	}
	// Packets of strangers to the port are counted.
	port := strings.Split(h.cluster().Hosts[0].Addrs[0], ":")[1]
	rootIn(t, "/run/netns/xh-h2", "bash", "-c", "printf 'hello' >/dev/udp/192.0.2.1/"+port)
	rootIn(t, "/run/netns/xh-h2", "bash", "-c", `printf '\x08\0\0\0\0\x10\0\0aaaaaabbbbbb\x08\0' >/dev/udp/192.0.2.1/`+port)
	eventually(t, func() error {
		if sum := h.cluster().Drops; len(sum) == 0 {
			return fmt.Errorf("nothing was counted: %v", sum)
		}
		return nil
	})
}
