package engines

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newPodman5 is Debian 13's Podman, whose default network is pasta's, with pasta's place taken.
func newPodman5(t testing.TB) *podman {
	t.Helper()
	bin := helpers(t, map[string]string{"pasta": pasta})
	p := configurePodman(t, "crun", fmt.Sprintf("network_cmd_path=%q\nhelper_binaries_dir=[%q, \"/usr/libexec/podman\", \"/usr/lib/podman\", \"/usr/bin\"]\n",
		slirp4netns, bin))
	if v := p.ok("podman", "info", "-f", "{{.Host.Pasta.Version}}"); pasta != os.Getenv("USERNET_ENGINES_PASTA") &&
		!strings.Contains(v, "usernet") {
		t.Fatalf("podman does not call usernet in pasta's place: %s", v)
	}
	if v := p.ok("podman", "--version"); !strings.Contains(v, " 5.") {
		t.Fatalf("these tests need Podman 5, as in Debian 13: %s", v)
	}
	return p
}

// helpers makes a directory of links, by name.
func helpers(t testing.TB, links map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ue-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// expect runs a container and compares its output.
func (p *podman) expect(want, without []string, args ...string) {
	p.t.Helper()
	out := p.run(args...)
	for _, w := range want {
		if !strings.Contains(out, w) {
			p.t.Errorf("%q is not in:\n%s", w, out)
		}
	}
	for _, w := range without {
		if strings.Contains(out, w) {
			p.t.Errorf("%q is in:\n%s", w, out)
		}
	}
}

// TestPodman5OverPasta has what Podman 5 calls pasta with, by default and by options of --network pasta.
func TestPodman5OverPasta(t *testing.T) {
	p := newPodman5(t)
	for _, c := range []struct {
		name    string
		args    string
		command string
		want    []string
		without []string
	}{
		{"plain", "", "ip addr show eth0; ip route; cat /etc/resolv.conf /etc/hosts",
			[]string{"192.0.2.2/24", "2001:db8::2/64", "mtu 65520", "default via 192.0.2.1", "nameserver 169.254.1.1",
				"169.254.1.2\thost.containers.internal"}, nil},
		{"out by address", "--network pasta", "wget -qO- http://192.0.2.1:8000/; sleep 1 | nc 192.0.2.1 7000", []string{"outside", "192.0.2.2"}, nil},
		{"out by IPv6", "", "wget -qO- http://[2001:db8::1]:8000/", []string{"outside"}, nil},
		{"out by name", "", "wget -qO- http://outside.example:8000/", []string{"outside"}, nil},
		{"keep-id", "--userns keep-id", "ip addr show eth0; wget -qO- http://192.0.2.1:8000/",
			[]string{"192.0.2.2/24", "outside"}, nil},
		{"an own plan", "--network pasta:-a,10.0.2.100,-n,24,-g,10.0.2.2,--dns-forward,10.0.2.3,-I,tap7,--ipv4-only,--mtu,1400",
			"ip addr show tap7; ip route; cat /etc/resolv.conf; wget -qO- http://outside.example:8000/",
			[]string{"10.0.2.100/24", "default via 10.0.2.2", "mtu 1400", "nameserver 10.0.2.3", "outside"},
			[]string{"inet6 2001"}},
		{"its MAC address", "--network pasta:--ns-mac-addr,02:00:00:00:77:01,-M,02:00:00:00:77:02", "ip link show eth0; wget -qO- http://192.0.2.1:8000/; ip neigh",
			[]string{"02:00:00:00:77:01", "outside", "02:00:00:00:77:02"}, nil},
		{"IPv6 alone", "--network pasta:-6", "ip addr show eth0; wget -qO- http://[2001:db8::1]:8000/",
			[]string{"2001:db8::2/64", "outside"}, []string{"192.0.2.2"}},
		{"ping", "--cap-add NET_RAW", "ping -c 1 -W 5 192.0.2.1", []string{"1 packets received"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &podman{&user{t, p.dir, p.environ}, p.runtime}
			q.expect(c.want, c.without, append(strings.Fields(c.args), "bb:1", "sh", "-c", c.command)...)
		})
	}
}

// TestPodman5HostContainersInternal: the name leads to the host at its own address, and with --map-gw the gateway to
// its loopback.
func TestPodman5HostContainersInternal(t *testing.T) {
	p := newPodman5(t)
	l, err := net.Listen("tcp", "192.0.2.2:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "host")
	url := fmt.Sprintf("http://host.containers.internal:%d/", l.Addr().(*net.TCPAddr).Port)
	p.expect([]string{"host"}, nil, "bb:1", "wget", "-T", "10", "-qO-", url)

	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, loopback, "loopback")
	url = fmt.Sprintf("http://192.0.2.1:%d/", loopback.Addr().(*net.TCPAddr).Port)
	p.expect([]string{"loopback"}, nil, "--network", "pasta:--map-gw", "bb:1", "wget", "-T", "10", "-qO-", url)
	if r := p.try("podman", "run", "--rm", "bb:1", "wget", "-T", "5", "-qO-", url); r.code == 0 {
		t.Errorf("the host's loopback is reached unasked: %v", r)
	}
}

// TestPodman5Publishes has single ports, ranges, addresses, datagrams, the client's address, restart and migration.
func TestPodman5Publishes(t *testing.T) {
	p := newPodman5(t)
	p.ok("podman", "run", "-d", "--name", "web", "-p", "18480:80", "-p", "127.0.0.1:18481-18482:81-82", "-p",
		"18483:83/udp", "bb:1",
		"sh", "-c", "httpd -p 81 -h /var/www; httpd -p 82 -h /var/www; helper udpserve :83 & exec httpd -f -v -p 80 -h /var/www")
	answers := func() {
		t.Helper()
		for _, url := range []string{"http://127.0.0.1:18480/", "http://192.0.2.2:18480/",
			"http://[2001:db8::2]:18480/", "http://127.0.0.1:18481/", "http://127.0.0.1:18482/"} {
			eventually(t, func() error { return says(url, "container\n") })
		}
	}
	answers()
	if says("http://192.0.2.2:18481/", "container\n") == nil {
		t.Error("a port of the loopback's answers at another address")
	}
	eventually(t, func() error { return echoes("127.0.0.1:18483") })
	fetchFromOutside(t, "http://192.0.2.2:18480/")
	eventually(t, func() error {
		if log := p.try("podman", "logs", "web"); !strings.Contains(log.stdout+log.stderr, "192.0.2.1") {
			return fmt.Errorf("the service does not see the client's address: %v", log)
		}
		return nil
	})
	p.ok("podman", "restart", "--time", "0", "web")
	answers()
	p.ok("podman", "system", "migrate") // ends containers
	p.ok("podman", "start", "web")
	answers()
	p.ok("podman", "rm", "--force", "--time", "0", "web")
	eventually(t, func() error { return refuses("127.0.0.1:18480") })

	l, err := net.Listen("tcp", "127.0.0.1:18485")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := p.try("podman", "run", "--rm", "-p", "127.0.0.1:18485:80", "bb:1", "true")
	if r.code != 126 || !strings.Contains(r.stderr, "pasta failed with exit code 1:") ||
		!strings.Contains(r.stderr, "Failed to bind port 18485 (Address already in use)") {
		t.Errorf("a port that is taken: %v", r)
	}
	if r := p.try("podman", "run", "--rm", "--network", "pasta:--frobnicate", "bb:1", "true"); r.code != 126 ||
		!strings.Contains(r.stderr, "unrecognized option '--frobnicate'") {
		t.Errorf("an unknown option: %v", r)
	}
}

// TestPodman5Bridge: named networks are kernel bridges in a namespace that pasta connects, which lives with the first
// container.
func TestPodman5Bridge(t *testing.T) {
	p := newPodman5(t)
	p.ok("podman", "network", "create", "--ipv6", "lan")
	p.ok("podman", "run", "-d", "--name", "web", "--network", "lan", "-p", "18490:80", "bb:1", "httpd", "-f", "-p",
		"80", "-h", "/var/www")
	eventually(t, func() error { return says("http://127.0.0.1:18490/", "container\n") })
	p.expect([]string{"outside"}, nil, "--network", "lan", "bb:1", "wget", "-T", "10", "-qO-", "http://192.0.2.1:8000/")
	p.expect([]string{"outside"}, nil, "--network", "lan", "bb:1", "wget", "-T", "10", "-qO-",
		"http://[2001:db8::1]:8000/")
	p.expect([]string{"outside"}, nil, "--network", "lan", "bb:1", "wget", "-T", "10", "-qO-",
		"http://outside.example:8000/")
	p.expect([]string{"container"}, nil, "--network", "lan", "bb:1", "wget", "-T", "10", "-qO-", "http://web/")
	p.ok("podman", "restart", "--time", "0", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18490/", "container\n") })
	p.ok("podman", "rm", "--force", "--time", "0", "web")
	p.ok("podman", "network", "rm", "lan")
}

// TestPodman5PlaysAPod: two containers share one namespace.
func TestPodman5PlaysAPod(t *testing.T) {
	p := newPodman5(t)
	p.playAPod("pasta", 18495)
}
