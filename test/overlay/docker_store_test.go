package overlay

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startEtcd2 starts etcd with version 2 of its API, which Docker's daemons speak.
func (w *world) startEtcd2() { w.etcd("--enable-v2") }

// endpointsOfDocker is what the store has of endpoints and their counts.
func (w *world) endpointsOfDocker() string {
	var text strings.Builder
	for _, dir := range []string{"endpoint", "endpoint_count"} {
		out, err := exec.Command("nsenter", "--net=/run/netns/xh-h4", "curl", "-sS", "--max-time", "5",
			"http://"+storeHost+":2379/v2/keys/docker/network/v1.0/"+dir+"?recursive=true").CombinedOutput()
		fmt.Fprintf(&text, "%s: %s (%v)\n", dir, out, err)
	}
	return text.String()
}

// A dockerd is a daemon of Docker 20.10, the last one with a key-value store, as root in a namespace of its own on the
// hosts' Ethernet. It has an image "busybox", with the helper program in it.
type dockerd struct {
	t     testing.TB
	n     int
	dir   string
	store string
	cmd   *exec.Cmd
}

// newDockerd starts one, for the length of a test: number 1 to 9, at 192.0.2.10 to 18.
func newDockerd(t testing.TB, n int, store string) *dockerd {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", fmt.Sprintf("uod%d-", n))
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerd{t: t, n: n, dir: dir, store: store}
	const sw = "/run/netns/xh-sw"
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	link := fmt.Sprintf("ed%d", n)
	addNamespace(t, d.name(), sw, link)
	rootIn(t, sw, "ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", d.name())
	rootIn(t, sw, "ip", "link", "set", link, "master", "br0", "up")
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", d.addr() + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", "192.0.2.254"}, // which it insists on
	} {
		rootIn(t, d.ns(), append([]string{"ip"}, args...)...)
	}
	t.Cleanup(d.stop)
	d.start()
	image := filepath.Join(dir, "image.tar")
	writeImage(t, image)
	d.docker("import", image, "busybox")
	return d
}

func (d *dockerd) name() string { return fmt.Sprintf("xh-d%d", d.n) }
func (d *dockerd) ns() string   { return "/run/netns/" + d.name() }
func (d *dockerd) addr() string { return fmt.Sprintf("192.0.2.%d", 9+d.n) }

// writeImage writes the file system of containers.
func writeImage(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"bin/busybox": busybox, "bin/helper": helper} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
		}
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, applet := range []string{"ping", "sleep", "sh", "nslookup", "ip"} {
		err := w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// start starts the daemon and waits until it answers. Each has a host name of its own, by which they know each other.
func (d *dockerd) start() {
	d.t.Helper()
	in := func(name string) string { return filepath.Join(d.dir, name) }
	log, err := os.OpenFile(in("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("nsenter", "--net="+d.ns(), "unshare", "--mount", "--uts", "--propagation", "private", "sh",
		"-c", `hostname "$0" && exec dockerd "$@"`, d.name(), "-H", "unix://"+in("sock"), "--data-root", in("root"),
		"--exec-root", in("exec"), "--pidfile", in("pid"), "--storage-driver", "vfs", "--debug",
		"--bip", fmt.Sprintf("172.2%d.0.1/24", d.n), "--cluster-store", d.store,
		"--cluster-advertise", d.addr()+":2376")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, func() error {
		if out, err := d.try("version"); err != nil {
			return fmt.Errorf("dockerd %d does not answer: %w: %s\n%s", d.n, err, out, d.logText())
		}
		return nil
	})
}

func (d *dockerd) logText() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return tail(string(text), 30)
}

// stop ends the daemon with its containers.
func (d *dockerd) stop() {
	if d.cmd == nil {
		return
	}
	if d.t.Failed() {
		d.t.Logf("dockerd %d: %s", d.n, d.logText())
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() { _ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	_ = d.cmd.Wait()
	d.cmd = nil
}

// try runs the docker client.
func (d *dockerd) try(args ...string) (string, error) {
	cmd := exec.Command("docker", append([]string{"-H", "unix://" + filepath.Join(d.dir, "sock")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+d.dir)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// docker does so, and has to succeed. Now and then Docker 20.10 calls the store from a thread that it has left in a
// container's network namespace, where the network is unreachable: then it is asked again.
func (d *dockerd) docker(args ...string) (out string) {
	d.t.Helper()
	eventually(d.t, func() (err error) {
		if out, err = d.try(args...); err == nil {
			return nil
		}
		err = fmt.Errorf("dockerd %d: docker %s: %w: %s", d.n, strings.Join(args, " "), err, out)
		if !strings.Contains(out, "store") || !strings.Contains(out, "network is unreachable") {
			d.t.Fatal(err)
		}
		d.t.Log(err)
		if i := slices.Index(args, "--name"); i >= 0 {
			_, _ = d.try("rm", "-f", args[i+1]) // the container that was made and not started
		}
		return err
	})
	return out
}

// run starts a container that serves digests at port 80.
func (d *dockerd) run(name, network string, flags ...string) {
	d.t.Helper()
	args := append([]string{"run", "-d", "--name", name, "--network", network}, flags...)
	d.docker(append(args, "busybox", "helper", "tcpserve", ":80", "digest")...)
}

// address is a container's address on a network.
func (d *dockerd) address(name, network string) string {
	d.t.Helper()
	return d.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), name)
}

// pings waits until a container reaches a name or address.
func (d *dockerd) pings(name, target string) {
	d.t.Helper()
	eventually(d.t, func() error {
		if out, err := d.try("exec", name, "ping", "-c", "1", "-W", "2", target); err != nil {
			return fmt.Errorf("dockerd %d: %s to %s: %w: %s", d.n, name, target, err, out)
		}
		return nil
	})
}

// sees waits until the daemon knows a network with these containers.
func (d *dockerd) sees(network string, endpoints ...string) {
	d.t.Helper()
	eventually(d.t, func() error {
		out, err := d.try("network", "inspect", "-f",
			"{{.Driver}} {{.Scope}}{{range .Containers}} {{.Name}}{{end}}", network)
		words := strings.Fields(out)
		if err != nil || len(words) < 2 || words[0] != "overlay" || words[1] != "global" {
			return fmt.Errorf("dockerd %d has network %s as %q: %w", d.n, network, out, err)
		}
		names := words[2:]
		slices.Sort(names)
		if !slices.Equal(names, endpoints) {
			return fmt.Errorf("dockerd %d has %v on network %s, want %v", d.n, names, network, endpoints)
		}
		return nil
	})
}

// TestBesideDockersDaemons has a usernet daemon as the third host of Docker's own overlay networks.
func TestBesideDockersDaemons(t *testing.T) {
	const url = "etcd://" + storeHost + ":2379"
	w := newStore(t, store{name: "etcd", start: (*world).startEtcd2})
	a, b := newDockerd(t, 1, url), newDockerd(t, 2, url)
	c := newHost(t, 3)
	c.start("--docker-store", url, "--cluster-advertise", c.addr())

	id := a.docker("network", "create", "-d", "overlay", "--subnet", "10.50.0.0/24", "ov_net1")
	c.seesNetwork("ov_net1", id)
	a.run("d1", "ov_net1")
	c.serve("u3", []string{"--network", "ov_net1", "--network-alias", "third"}, helper, "tcpserve", ":80", "digest")
	b.run("d2", "ov_net1")
	addrs := map[string]string{
		"d1": a.address("d1", "ov_net1"), "d2": b.address("d2", "ov_net1"), "u3": c.address("u3", "eth0").String(),
	}
	if addrs["d1"] == addrs["u3"] || addrs["u3"] == addrs["d2"] || addrs["d1"] == addrs["d2"] {
		t.Fatalf("an address was handed out twice: %v", addrs)
	}
	all := func() {
		t.Helper()
		for _, target := range []string{"u3", "third", addrs["u3"]} {
			a.pings("d1", target)
			b.pings("d2", target)
		}
		for _, target := range []string{"d1", "d2", addrs["d1"], addrs["d2"]} {
			c.pings("u3", target)
		}
	}
	all()
	a.sees("ov_net1", "d1", "d2", "u3")
	c.seesContainers("ov_net1", "d1", "d2", "u3")
	const size = "3000000"
	for _, to := range []string{"d1", "d2"} {
		if r := c.exec("u3", helper, "tcpsend", addrs[to]+":80", size); !strings.Contains(r.stdout, "same "+size) {
			t.Errorf("from u3 to %s: %v", to, r)
		}
	}
	if out := c.ok("trace", "--timeout", "20s", "u3", "d1:80"); !strings.Contains(out, "d1 of host "+a.addr()) ||
		!strings.Contains(out, "straight to "+a.addr()) || !strings.Contains(out, "yes: it got through") {
		t.Errorf("trace to a container of Docker's: %s", out)
	}
	for from, d := range map[string]*dockerd{"d1": a, "d2": b} {
		if out, err := d.try("exec", from, "helper", "tcpsend", "u3:80", size); !strings.Contains(out, "same "+size) {
			t.Errorf("from %s to u3: %v: %s", from, err, out)
		}
	}

	// A daemon of Docker comes back, which has forgotten where endpoints are, and asks.
	a.stop()
	a.start()
	a.docker("start", "d1")
	addrs["d1"] = a.address("d1", "ov_net1")
	all()
	// So does the usernet daemon, whose container has lived on.
	c.stop(syscall.SIGKILL)
	c.again()
	all()

	// The address of a container that leaves is free again for Docker's, which is then found there.
	c.ok("rm", "-f", "u3")
	b.sees("ov_net1", "d1", "d2")
	eventually(t, func() error {
		_, _ = b.try("rm", "-f", "d3")
		out, err := b.try("run", "-d", "--name", "d3", "--network", "ov_net1", "--ip", addrs["u3"], "busybox", "sleep",
			"1000000")
		if err != nil {
			return fmt.Errorf("the address %s is not free: %w: %s", addrs["u3"], err, out)
		}
		return nil
	})
	c.idle("u4", "--network", "ov_net1")
	for _, target := range []string{"d3", addrs["u3"]} {
		c.pings("u4", target)
	}
	b.pings("d3", "u4")
	c.fails("Address already in use", "run", "--rm", "--network", "ov_net1", "--ip", addrs["u3"], "--", "true")

	// A network that is made here is one of Docker's too, and is removed by either.
	id = c.docker("network", "create", "-d", "overlay", "--subnet", "10.51.0.0/24", "ov_net2")
	a.sees("ov_net2")
	if got := b.docker("network", "inspect", "-f", "{{.Id}}", "ov_net2"); got != id {
		t.Errorf("ov_net2 is %s, and %s at Docker's", id, got)
	}
	c.idle("u5", "--network", "ov_net2")
	a.run("d5", "ov_net2")
	a.pings("d5", "u5")
	c.pings("u5", "d5")
	if _, err := b.try("network", "rm", "ov_net2"); err == nil {
		t.Error("a network in use is removed")
	}
	c.fails("has active endpoints", "network", "rm", "ov_net2")
	c.ok("rm", "-f", "u5")
	a.docker("rm", "-f", "d5")
	if out, err := a.try("network", "rm", "ov_net2"); err != nil {
		t.Logf("%v: %s", err, out) // Docker could not count that its endpoint has left (see docker)
		c.ok("network", "rm", "ov_net2")
	}
	eventually(t, func() error {
		if r := c.try("network", "inspect", "ov_net2"); r.code == 0 {
			return errors.New("ov_net2 is still there")
		}
		return nil
	})
	// Without the store, what was known stays, and nothing new is made.
	w.kill()
	c.pings("u4", "d1")
	a.pings("d1", c.address("u4", "eth0").String())
	c.fails("no address was taken", "run", "--rm", "--network", "ov_net1", "--", "true")
	w.restart()

	c.ok("rm", "-f", "u4")
	a.docker("rm", "-f", "d1")
	b.docker("rm", "-f", "d2", "d3")
	if r := c.try("network", "rm", "ov_net1"); r.code != 0 {
		t.Logf("ov_net1 stays: %v\n%s", r, w.endpointsOfDocker())
		for _, d := range []*dockerd{a, b} { // they delete what they could not (see docker)
			d.stop()
			d.start()
		}
		eventually(t, func() error {
			if r := c.try("network", "rm", "ov_net1"); r.code != 0 {
				return fmt.Errorf("ov_net1 stays: %v\n%s", r, w.endpointsOfDocker())
			}
			return nil
		})
	}
	eventually(t, func() error {
		if out, err := b.try("network", "inspect", "ov_net1"); err == nil {
			return fmt.Errorf("ov_net1 is still there: %s", out)
		}
		return nil
	})
}

// TestDockersNetworkInZooKeeper has two usernet daemons on a network that a daemon of Docker has made. Docker 20.10
// ends with a fault when a container of its own comes to a network in ZooKeeper, alone or not, so it has none.
func TestDockersNetworkInZooKeeper(t *testing.T) {
	const url = "zk://" + storeHost + ":2181"
	newStore(t, store{name: "zookeeper", start: (*world).startZooKeeper})
	a, b, c := newDockerd(t, 1, url), newHost(t, 2), newHost(t, 3)
	for _, h := range []*host{b, c} {
		h.start("--docker-store", url, "--cluster-advertise", h.addr())
	}
	id := a.docker("network", "create", "-d", "overlay", "--subnet", "10.50.0.0/24", "ov_net1")
	for i, h := range []*host{b, c} {
		h.seesNetwork("ov_net1", id)
		h.idle(fmt.Sprintf("u%d", i+1), "--network", "ov_net1")
	}
	b.pings("u1", "u2")
	c.pings("u2", "u1")
	a.sees("ov_net1", "u1", "u2")
	c.stop(syscall.SIGKILL)
	c.again()
	c.pings("u2", "u1")
	b.ok("rm", "-f", "u1")
	a.sees("ov_net1", "u2")
	c.ok("rm", "-f", "u2")
	eventually(t, func() error {
		if r := b.try("network", "rm", "ov_net1"); r.code != 0 {
			return fmt.Errorf("ov_net1 stays: %v", r)
		}
		return nil
	})
	eventually(t, func() error {
		if out, err := a.try("network", "inspect", "ov_net1"); err == nil {
			return fmt.Errorf("ov_net1 is still there: %s", out)
		}
		return nil
	})
}
