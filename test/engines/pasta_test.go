package engines

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// namespace is a network namespace of the user's, held by a process.
type namespace struct {
	*user
	pid  int
	hold *exec.Cmd
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	u := newUser(t)
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--net", "sleep", "600")
	cmd.Env = u.environ
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &namespace{u, cmd.Process.Pid, cmd}
	t.Cleanup(n.end)
	own, _ := os.Readlink("/proc/self/ns/net")
	eventually(t, func() error {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n.pid))
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", n.pid))
		if err == nil && (theirs == own || strings.TrimSpace(string(name)) != "sleep") {
			err = fmt.Errorf("no namespace yet")
		}
		return err
	})
	return n
}

// end ends the namespace's process.
func (n *namespace) end() {
	_ = n.hold.Process.Kill()
	_ = n.hold.Wait() // killed
}

// in runs a command in the namespace.
func (n *namespace) in(args ...string) result {
	n.t.Helper()
	return n.try("nsenter", append(
		[]string{"--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(n.pid), "--"}, args...)...)
}

// pasta connects the namespace, and has the process in the background end with the test.
func (n *namespace) pasta(args ...string) {
	n.t.Helper()
	pidFile := filepath.Join(n.dir, "pasta.pid")
	began := time.Now()
	if r := n.try(pasta, append(append([]string{"--config-net", "--pid", pidFile}, args...), strconv.Itoa(
		n.pid))...); r.code != 0 || r.stdout != "" {
		n.t.Fatalf("after %v: %v", time.Since(began), r)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		n.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.end()
		eventually(n.t, func() error { // the process ends by itself, with the namespace
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
				return fmt.Errorf("pasta goes on after the namespace's end")
			}
			return nil
		})
	})
}

// TestPastaMakesTheNamespaceLookLikeTheHost has addresses, routes, name, source and what leads to the host.
func TestPastaMakesTheNamespaceLookLikeTheHost(t *testing.T) {
	n := newNamespace(t)
	n.pasta("--dns-forward", "169.254.1.1", "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw",
		"--quiet",
		"--map-guest-addr", "169.254.1.2")
	out := n.in("sh", "-c", "ip addr show eth0; ip route; ip -6 route")
	for _, want := range []string{"192.0.2.2/24", "2001:db8::2/64", "mtu 65520", "default via 192.0.2.1 dev eth0",
		"default via 2001:db8::1"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("%q is not in:\n%v", want, out)
		}
	}
	for name, c := range map[string]struct{ command, want string }{
		"a neighbour of the host's": {"curl -s -m 10 http://192.0.2.1:8000/", "outside"},
		"over IPv6":                 {"curl -s -m 10 'http://[2001:db8::1]:8000/'", "outside"},
		"the source":                {"sleep 1 | ncat 192.0.2.1 7000", "192.0.2.2"},
		"a datagram's source":       {helper + " udpdial 192.0.2.1:7000", "192.0.2.2"},
		"a name":                    {"dig +short +time=5 @169.254.1.1 outside.example", "192.0.2.1"},
		"an echo":                   {"ping -c 1 -W 5 192.0.2.1 | grep -o '1 received'", "1 received"},
	} {
		if r := n.in("sh", "-c", c.command); strings.TrimSpace(r.stdout) != c.want {
			t.Errorf("%s: want %q: %v", name, c.want, r)
		}
	}
	l, err := net.Listen("tcp", "192.0.2.2:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "host")
	url := fmt.Sprintf("http://169.254.1.2:%d/", l.Addr().(*net.TCPAddr).Port)
	if r := n.in("curl", "-s", "-m", "10", url); r.stdout != "host" {
		t.Errorf("the host by --map-guest-addr: %v", r)
	}
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, loopback, "loopback")
	if r := n.in("curl", "-s", "-m", "5", fmt.Sprintf("http://192.0.2.1:%d/",
		loopback.Addr().(*net.TCPAddr).Port)); r.code == 0 {
		t.Errorf("the gateway leads to the host's loopback in spite of --no-map-gw: %v", r)
	}
}

// TestPastaMapsTheGateway: without --no-map-gw the gateway's address is the host's loopback.
func TestPastaMapsTheGateway(t *testing.T) {
	n := newNamespace(t)
	n.pasta("-t", "none", "-u", "none")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "loopback")
	if r := n.in("curl", "-s", "-m", "10", fmt.Sprintf("http://192.0.2.1:%d/",
		l.Addr().(*net.TCPAddr).Port)); r.stdout != "loopback" {
		t.Errorf("the host's loopback: %v", r)
	}
}

// TestPastaAsRootlessKitCallsIt: addresses that are given, and another name.
func TestPastaAsRootlessKitCallsIt(t *testing.T) {
	n := newNamespace(t)
	n.pasta("--stderr", "--ns-ifname=tap0", "--mtu=1500", "--address=10.0.2.100", "--netmask=24", "--gateway=10.0.2.2",
		"--dns-forward=10.0.2.3", "--no-map-gw", "--ipv4-only", "--tcp-ports=none", "--udp-ports=none",
		"--host-lo-to-ns-lo")
	r := n.in("sh", "-c", "ip addr show tap0; ip route; curl -s -m 10 http://192.0.2.1:8000/; dig +short +time=5 @10.0.2.3 outside.example")
	for _, want := range []string{"10.0.2.100/24", "mtu 1500", "default via 10.0.2.2 dev tap0", "outside",
		"192.0.2.1"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in:\n%v", want, r)
		}
	}
	if strings.Contains(r.stdout, "inet6 2001") {
		t.Errorf("IPv6 in spite of --ipv4-only: %v", r)
	}
}

// TestPastaPublishes has named ports, ranges with others inside, and ports that are followed.
func TestPastaPublishes(t *testing.T) {
	n := newNamespace(t)
	n.pasta("-t", "18820-18821:80-81", "-u", "none")
	www := filepath.Join(n.dir, "www")
	if err := os.MkdirAll(www, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("container\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.serve("80", www)
	n.serve("81", www)
	for _, url := range []string{"http://127.0.0.1:18820/", "http://127.0.0.1:18821/", "http://192.0.2.2:18820/"} {
		eventually(t, func() error { return says(url, "container\n") })
	}
	fetchFromOutside(t, "http://192.0.2.2:18820/")

	auto := newNamespace(t)
	auto.pasta("-t", "auto", "-u", "none")
	stop := auto.serve("18830", www)
	eventually(t, func() error { return says("http://127.0.0.1:18830/", "container\n") })
	stop()
	eventually(t, func() error {
		c, err := net.DialTimeout("tcp", "127.0.0.1:18830", time.Second)
		if err == nil {
			c.Close()
			return fmt.Errorf("a port is published at which nothing listens any more")
		}
		return nil
	})
}

// serve starts a web server in the namespace.
func (n *namespace) serve(port, dir string) (stop func()) {
	n.t.Helper()
	return n.background("busybox", "httpd", "-f", "-p", port, "-h", dir)
}

// background starts a program in the namespace, until stop is called or the test ends.
func (n *namespace) background(args ...string) (stop func()) {
	n.t.Helper()
	cmd := exec.Command("nsenter",
		append([]string{"--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(n.pid), "--"},
			args...)...)
	cmd.Env = n.environ
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}
	n.t.Cleanup(stop)
	return stop
}

// TestPastaFails with the exit status and the words that Podman reads, and leaves nothing.
func TestPastaFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:18840")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := newNamespace(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a port that is taken": {[]string{"--config-net", "-t", "127.0.0.1/18840", strconv.Itoa(n.pid)}, "Failed to bind port 18840 (Address already in use) for option '-t 18840-18840:18840-18840', exiting"},
		"an unknown option": {[]string{"--map-gw-not", strconv.Itoa(n.pid)},
			"unrecognized option '--map-gw-not"},
		"a process that is gone":   {[]string{"--config-net", "4194303"}, "namespace"},
		"a path that is not there": {[]string{"--config-net", "--netns", "/nowhere/ns"}, "namespace"},
		"a process id that cannot be written": {[]string{"--config-net", "--pid", "/nowhere/pid", strconv.Itoa(n.pid)},
			"Pid file: open /nowhere/pid"},
	} {
		r := n.try(pasta, c.args...)
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, c.want) {
			t.Errorf("%s: want status 1 and %q: %v", name, c.want, r)
		}
	}
	if r := n.in("ip", "-br", "link"); strings.Contains(r.stdout, "eth0") {
		t.Errorf("an interface is left behind: %v", r)
	}
}
