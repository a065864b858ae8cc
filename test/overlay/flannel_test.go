package overlay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A flannelNode is a host with a real flanneld, and a container behind a bridge as Docker has it with flannel: a
// namespace with the third address of the node's subnet.
type flannelNode struct {
	t      testing.TB
	n      int // of the host
	dir    string
	cmd    *exec.Cmd
	subnet netip.Prefix
}

func (f *flannelNode) ns() string        { return fmt.Sprintf("/run/netns/xh-h%d", f.n) }
func (f *flannelNode) host() string      { return fmt.Sprintf("192.0.2.%d", f.n) }
func (f *flannelNode) container() string { return fmt.Sprintf("/run/netns/xh-p%d", f.n) }
func (f *flannelNode) address() string   { return f.subnet.Addr().Next().Next().String() }

// key is that of its lease.
func (f *flannelNode) key() string {
	return flannelKeys + "subnets/" + strings.Replace(f.subnet.String(), "/", "-", 1)
}

// newFlannelNode starts flanneld on host n, which has no daemon of usernet's, for the length of a test.
func newFlannelNode(t testing.TB, n int) *flannelNode {
	t.Helper()
	f := &flannelNode{t: t, n: n, dir: t.TempDir()}
	t.Cleanup(func() {
		f.stop()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(f.dir, "log"))
			t.Logf("the log of flanneld on host %d:\n%s", n, tail(string(text), 60))
		}
		for _, link := range []string{"flannel.1", "flannel0", "docker0"} {
			// One of the first two is there.
			_ = exec.Command("nsenter", "--net="+f.ns(), "ip", "link", "del", link).Run()
		}
	})
	f.start("eth0")
	rootIn(t, f.ns(), "sysctl", "-qw", "net.ipv4.ip_forward=1")
	t.Cleanup(func() { rootIn(t, f.ns(), "sysctl", "-qw", "net.ipv4.ip_forward=0") })
	name := filepath.Base(f.container())
	addNamespace(t, name, f.ns(), "vp")
	gateway := f.subnet.Addr().Next().String()
	length := "/" + strconv.Itoa(f.subnet.Bits())
	rootIn(t, f.ns(), "ip", "link", "add", "docker0", "type", "bridge")
	rootIn(t, f.ns(), "ip", "addr", "add", gateway+length, "dev", "docker0")
	rootIn(t, f.ns(), "ip", "link", "set", "docker0", "up")
	mtu := f.setting("FLANNEL_MTU")
	rootIn(t, f.ns(), "ip", "link", "add", "vp", "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu,
		"netns", name)
	rootIn(t, f.ns(), "ip", "link", "set", "vp", "master", "docker0", "up")
	rootIn(t, f.container(), "ip", "link", "set", "lo", "up")
	rootIn(t, f.container(), "ip", "addr", "add", f.address()+length, "dev", "eth0")
	rootIn(t, f.container(), "ip", "link", "set", "eth0", "up")
	rootIn(t, f.container(), "ip", "route", "add", "default", "via", gateway)
	digestServer(t, f.container(), f.address()+":80")
	return f
}

// start starts flanneld, and waits for its subnet.
func (f *flannelNode) start(iface string) {
	f.t.Helper()
	flanneld := os.Getenv("USERNET_FLANNELD")
	if flanneld == "" {
		f.t.Fatal("USERNET_FLANNELD names no flanneld: make overlay builds one")
	}
	file := filepath.Join(f.dir, "log")
	log, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	before, _ := os.ReadFile(file)
	f.cmd = exec.Command("nsenter", "--net="+f.ns(), flanneld, "-etcd-endpoints=http://"+storeHost+":2379",
		"-iface="+iface, "-subnet-file="+f.file())
	f.cmd.Stdout, f.cmd.Stderr = log, log
	if err := f.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, func() error {
		text, _ := os.ReadFile(file)
		if !strings.Contains(string(text[len(before):]), "Wrote subnet file") {
			return fmt.Errorf("flanneld on host %d has no subnet: %s", f.n, tail(string(text), 20))
		}
		return nil
	})
	gateway, err := netip.ParsePrefix(f.setting("FLANNEL_SUBNET"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.subnet = gateway.Masked()
}

func (f *flannelNode) file() string { return filepath.Join(f.dir, "subnet.env") }

// setting is a value that flanneld wrote for Docker.
func (f *flannelNode) setting(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(f.file())
	match := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(string(text))
	if err != nil || match == nil {
		f.t.Fatalf("no %s in what flanneld wrote: %v: %s", name, err, text)
	}
	return match[1]
}

// stop ends flanneld; its lease stays.
func (f *flannelNode) stop() {
	if f.cmd == nil {
		return
	}
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	_ = f.cmd.Wait()
	f.cmd = nil
}

// etcdctl runs etcd's own client beside the server.
func (w *world) etcdctl(args ...string) string {
	w.t.Helper()
	all := append([]string{"env", "ETCDCTL_API=3", "etcdctl", "--endpoints=http://" + storeHost + ":2379"}, args...)
	return rootIn(w.t, "/run/netns/xh-h4", all...)
}

const flannelKeys = "/coreos.com/network/"

// newFlannel starts etcd with flannel's configuration.
func newFlannel(t testing.TB, config string) *world {
	t.Helper()
	w := newStore(t, stores[0])
	w.etcdctl("put", flannelKeys+"config", config)
	return w
}

// flannelLease is the key of a host's lease and the id of the store's lease that it hangs on; "" where there is none.
func (w *world) flannelLease(h *host) (key string, id int64) {
	w.t.Helper()
	var list struct {
		Kvs []struct {
			Key, Value []byte
			Lease      int64
		}
	}
	text := w.etcdctl("get", "--prefix", flannelKeys+"subnets/", "-w", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		w.t.Fatalf("%v: %s", err, text)
	}
	for _, p := range list.Kvs {
		if strings.Contains(string(p.Value), fmt.Sprintf("%q", h.addr())) {
			return string(p.Key), p.Lease
		}
	}
	return "", 0
}

// joinFlannel starts a daemon that is a node, with a container that has a server.
func (h *host) joinFlannel(container string) {
	h.t.Helper()
	h.start("--flannel", "etcd://"+storeHost+":2379", "--flannel-lease", "10s")
	h.docker("network", "create", "-d", "flannel", "fl")
	h.serve(container, []string{"--network", "fl", "-p", "8080:80"}, helper, "tcpserve", ":80", "digest")
}

// talks has a container and a flannel node's reach each other, both ways.
func (h *host) talks(container string, f *flannelNode) {
	h.t.Helper()
	h.pings(container, f.address())
	reaches(h.t, f.container(), h.address(container, "eth0").String())
}

// TestFlannelVXLAN has daemons as nodes among real ones, through all that happens to leases and nodes.
func TestFlannelVXLAN(t *testing.T) {
	w := newFlannel(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	f := newFlannelNode(t, 2)
	a, b := newHost(t, 1), newHost(t, 3)
	a.joinFlannel("one")
	b.joinFlannel("two")
	one := a.address("one", "eth0").String()

	// Containers of all nodes reach each other, a node itself reaches containers, and a published port is the host's.
	a.talks("one", f)
	b.talks("two", f)
	a.pings("one", b.address("two", "eth0").String())
	reaches(t, f.ns(), one)
	a.streams("one", one, f.container(), f.address())
	node := "the subnet " + f.subnet.String() + " is of flannel's node " + f.host()
	if out := a.ok("trace", "--timeout", "20s", "one", f.address()); !strings.Contains(out, node) ||
		!strings.Contains(out, "yes: it got through") {
		t.Errorf("trace to a container of another node: %s", out)
	}
	const size = "300000"
	out := rootIn(t, f.ns(), helper, "tcpsend", a.addr()+":8080", size)
	if !strings.Contains(out, "same "+size) {
		t.Errorf("to the published port: %s", out)
	}
	key, id := w.flannelLease(a)
	if _, subnet, _ := strings.Cut(key, "subnets/"); !strings.HasPrefix(one, strings.TrimSuffix(subnet, "0-24")) {
		t.Errorf("container %s is not of the lease %q", one, key)
	}
	a.fails("has the addresses of", "run", "--rm", "--network", "fl", "--ip", f.address(), "--", "true")
	a.fails("one lease of flannel's", "network", "create", "-d", "flannel", "again")

	// The lease is renewed, and taken again when it is lost.
	least := 1 << 30
	eventually(t, func() error {
		out := w.etcdctl("lease", "timetolive", fmt.Sprintf("%x", id))
		match := regexp.MustCompile(`remaining\((\d+)s\)`).FindStringSubmatch(out)
		if match == nil {
			t.Fatalf("the lease is gone: %s", out)
		}
		left, _ := strconv.Atoi(match[1])
		if left <= least {
			least = left
			return fmt.Errorf("the lease is not renewed: %s", out)
		}
		return nil
	})
	w.etcdctl("lease", "revoke", fmt.Sprintf("%x", id))
	eventually(t, func() error {
		if again, next := w.flannelLease(a); again != key || next == id {
			return fmt.Errorf("the lease %s was not taken again: %q", key, again)
		}
		return nil
	})
	a.talks("one", f)

	// The store is away: what runs goes on, also through a restart, and new containers start.
	w.kill()
	a.stop(syscall.SIGKILL)
	a.again()
	a.talks("one", f)
	a.idle("new", "--network", "fl")
	a.talks("new", f)
	w.restart()
	eventually(t, func() error {
		if again, _ := w.flannelLease(a); again != key {
			return fmt.Errorf("the lease %s was not kept: %q", key, again)
		}
		return nil
	})

	// The flannel node comes back with another VTEP, and then at another address.
	f.stop()
	rootIn(t, f.ns(), "ip", "link", "del", "flannel.1")
	f.start("eth0")
	a.talks("one", f)
	f.stop()
	rootIn(t, f.ns(), "ip", "link", "del", "flannel.1")
	rootIn(t, f.ns(), "ip", "addr", "add", "192.0.2.22/24", "dev", "eth0")
	t.Cleanup(func() { rootIn(t, f.ns(), "ip", "addr", "del", "192.0.2.22/24", "dev", "eth0") })
	w.etcdctl("del", f.key()) // flanneld takes its old subnet at another address once the old lease has ended
	f.start("192.0.2.22")
	a.talks("one", f)

	// It goes for good: packets to it are refused at once, and the others stay.
	f.stop()
	w.etcdctl("del", f.key())
	eventually(t, func() error {
		if out := a.ok("network", "inspect", "--verbose", "fl"); strings.Contains(out, f.subnet.String()) {
			return fmt.Errorf("a node that is gone is known: %s", out)
		}
		return nil
	})
	if r := a.exec("one", "ping", "-c1", "-W5", f.address()); r.code == 0 ||
		!strings.Contains(r.stdout+r.stderr, "nreachable") {
		t.Errorf("a packet to a node that is gone: %v", r)
	}
	a.pings("one", b.address("two", "eth0").String())
}

// TestFlannelUDP is the same by bare packets, in user space on both sides.
func TestFlannelUDP(t *testing.T) {
	w := newFlannel(t, `{"Network":"10.6.0.0/16"}`)
	f := newFlannelNode(t, 2)
	a, b := newHost(t, 1), newHost(t, 3)
	a.joinFlannel("one")
	b.joinFlannel("two")
	a.talks("one", f)
	a.pings("one", b.address("two", "eth0").String())
	a.streams("one", a.address("one", "eth0").String(), f.container(), f.address())
	key, _ := w.flannelLease(a)
	a.stop(syscall.SIGTERM)
	a.again()
	a.talks("one", f)
	if again, _ := w.flannelLease(a); again != key {
		t.Errorf("after a restart the lease is %s, and was %s", again, key)
	}
}

// TestFlannelThatCannotBe: what takes privileges, or is missing, is said.
func TestFlannelThatCannotBe(t *testing.T) {
	w := newFlannel(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`)
	h := newHost(t, 1)
	h.start("--flannel", "etcd://"+storeHost+":2379")
	h.fails("backend host-gw takes privileges", "network", "create", "-d", "flannel", "fl")
	w.etcdctl("put", flannelKeys+"config",
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`)
	eventually(t, func() error {
		if r := h.try("network", "create", "-d", "flannel", "fl"); r.code != 0 {
			return fmt.Errorf("the configuration is right now: %v", r)
		}
		return nil
	})
	if out := h.ok("info"); !strings.Contains(out, "DirectRouting") {
		t.Errorf("what does not work with DirectRouting is not said: %s", out)
	}
	h.ok("network", "rm", "fl")
	h.fails("give none", "network", "create", "-d", "flannel", "--subnet", "10.7.0.0/24", "fl")
	h.stop(syscall.SIGTERM)
	h.start()
	h.fails("--flannel etcd://HOST", "network", "create", "-d", "flannel", "fl")
}
