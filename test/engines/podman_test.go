package engines

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// podman is rootless Podman of one user, with slirp4netns's place taken.
type podman struct {
	*user
	runtime string
}

func newPodman(t testing.TB, runtime string) *podman {
	t.Helper()
	p := configurePodman(t, runtime, fmt.Sprintf("network_cmd_path=%q\n", slirp4netns))
	if v := p.ok("podman", "info", "-f", "{{.Host.Slirp4NetNS.Version}}"); slirp4netns != os.Getenv(
		"USERNET_ENGINES_SLIRP4NETNS") && !strings.Contains(v, "usernet") {
		t.Fatalf("podman does not call usernet in slirp4netns's place: %s", v)
	}
	return p
}

// configurePodman gives a user Podman's configuration, with engine added to its section of that name, and an image.
func configurePodman(t testing.TB, runtime, engine string) *podman {
	t.Helper()
	p := &podman{newUser(t), runtime}
	dir := filepath.Join(p.dir, "home/.config/containers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"containers.conf": fmt.Sprintf("[engine]\nruntime=%q\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n", runtime) + engine,
		"storage.conf":    "[storage]\ndriver=\"vfs\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		p.try("podman", "rm", "--all", "--force", "--time", "0")
		p.try("podman", "system", "migrate") // ends the pause process
		// Now and then the name server stays that Podman has started for a network of containers that are gone.
		endWith(t, "--config "+filepath.Join(p.dir, "run/containers/networks/aardvark-dns"))
	})
	p.ok("podman", "import", "--change", "ENV PATH=/bin", image, "bb:1")
	return p
}

// run runs a container to its end and returns its output. On a busy machine Podman shows no output at all of a short
// command now and then, for a cause that is not known: it is run once more where there is none.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	args = append([]string{"run", "--rm"}, args...)
	if out := p.ok("podman", args...); out != "" {
		return out
	}
	return p.ok("podman", args...)
}

// TestPodmanOverSlirp4netns has each row of what Podman calls slirp4netns with.
func TestPodmanOverSlirp4netns(t *testing.T) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			p := newPodman(t, runtime)
			for _, c := range []struct {
				name    string
				network string
				command string
				want    []string
				without []string
			}{
				{"plain", "slirp4netns", "ip addr show tap0; cat /etc/resolv.conf; ip route",
					[]string{"10.0.2.100/24", "fd00::", "mtu 65520", "nameserver 10.0.2.3", "default via 10.0.2.2"},
					nil},
				{"without IPv6", "slirp4netns:enable_ipv6=false", "ip addr show tap0", []string{"10.0.2.100/24"},
					[]string{"inet6 fd00:"}},
				{"another network", "slirp4netns:cidr=10.9.0.0/24", "ip addr show tap0; ip route; cat /etc/resolv.conf",
					[]string{"10.9.0.100/24", "via 10.9.0.2", "nameserver 10.9.0.3"}, nil},
				{"another MTU", "slirp4netns:mtu=1400", "ip addr show tap0", []string{"mtu 1400"}, nil},
				{"out by address", "slirp4netns", "wget -qO- http://192.0.2.1:8000/; sleep 1 | nc 192.0.2.1 7000", []string{"outside", "192.0.2.2"}, nil},
				{"out by IPv6", "slirp4netns", "wget -qO- http://[2001:db8::1]:8000/", []string{"outside"}, nil},
				{"out by name", "slirp4netns", "wget -qO- http://outside.example:8000/", []string{"outside"}, nil},
				{"from an address", "slirp4netns:outbound_addr=192.0.2.2", "sleep 1 | nc 192.0.2.1 7000",
					[]string{"192.0.2.2"}, nil},
				{"from an IPv6 address", "slirp4netns:outbound_addr6=2001:db8::2", "sleep 1 | nc 2001:db8::1 7000",
					[]string{"[2001:0db8:0000:0000:0000:0000:0000:0002]"}, nil},
				{"from an interface", "slirp4netns:outbound_addr=eth0", "sleep 1 | nc 192.0.2.1 7000",
					[]string{"192.0.2.2"}, nil},
				{"ping", "slirp4netns", "ping -c 1 -W 5 192.0.2.1; ping -c 1 -W 5 10.0.2.2",
					[]string{"1 packets received"}, nil},
			} {
				t.Run(c.name, func(t *testing.T) {
					q := &podman{&user{t, p.dir, p.environ}, runtime}
					out := q.run("--cap-add", "NET_RAW", "--network", c.network, "bb:1", "sh", "-c", c.command)
					for _, w := range c.want {
						if !strings.Contains(out, w) {
							t.Errorf("%q is not in:\n%s", w, out)
						}
					}
					for _, w := range c.without {
						if strings.Contains(out, w) {
							t.Errorf("%q is in:\n%s", w, out)
						}
					}
				})
			}
		})
	}
}

// TestPodmanHostLoopback: the gateway leads to the host's loopback where that is asked for, and only there.
func TestPodmanHostLoopback(t *testing.T) {
	p := newPodman(t, "crun")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveText(t, l, "loopback")
	url := fmt.Sprintf("http://10.0.2.2:%d/", l.Addr().(*net.TCPAddr).Port)
	if out := p.run("--network", "slirp4netns:allow_host_loopback=true", "bb:1", "wget", "-qO-", url); out !=
		"loopback" {
		t.Errorf("the host's loopback says %q", out)
	}
	if r := p.try("podman", "run", "--rm", "--network", "slirp4netns", "bb:1", "wget", "-T", "5", "-qO-",
		url); r.code == 0 {
		t.Errorf("the host's loopback is reached unasked: %v", r)
	}
}

// TestPodmanPublishes has both ways in which Podman publishes ports beside slirp4netns, TCP and UDP, and a range.
func TestPodmanPublishes(t *testing.T) {
	for handler, seen := range map[string]string{"rootlesskit": "", "slirp4netns": "192.0.2.1"} {
		t.Run(handler, func(t *testing.T) {
			p := newPodman(t, "crun")
			p.ok("podman", "run", "-d", "--name", "web", "--network", "slirp4netns:port_handler="+handler,
				"-p", "18480:80", "-p", "18481-18482:81-82", "bb:1",
				"sh", "-c", "httpd -p 81 -h /var/www; exec httpd -f -v -p 80 -h /var/www")
			for _, url := range []string{"http://127.0.0.1:18480/", "http://192.0.2.2:18480/",
				"http://192.0.2.2:18481/"} {
				eventually(t, func() error { return says(url, "container\n") })
			}
			if seen != "" && slirp4netns != os.Getenv("USERNET_ENGINES_SLIRP4NETNS") { // the original does not keep it
				fetchFromOutside(t, "http://192.0.2.2:18480/")
				eventually(t, func() error {
					if log := p.try("podman", "logs", "web"); !strings.Contains(log.stdout+log.stderr, seen) {
						return fmt.Errorf("the service does not see the client's address %s: %v", seen, log)
					}
					return nil
				})
			}
			p.ok("podman", "restart", "--time", "0", "web")
			eventually(t, func() error { return says("http://127.0.0.1:18480/", "container\n") })
			p.ok("podman", "rm", "--force", "--time", "0", "web")
			eventually(t, func() error { return refuses("127.0.0.1:18480") })
		})
	}
}

// fetchFromOutside has the machine outside fetch a page.
func fetchFromOutside(t testing.TB, url string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", "192.0.2.1:7001", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, url+"\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "container\n" {
		t.Errorf("%s says to a machine outside: %q, %v", url, b, err)
	}
}

// serveText answers every request on l with a text, until the test ends.
func serveText(t *testing.T, l net.Listener, text string) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// says fetches a page and compares it.
func says(url, want string) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s says %q, want %q", url, b, want)
	}
	return err
}

// refuses is an error while a TCP port is open.
func refuses(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s is still open", address)
	}
	return nil
}

// echoes sends a datagram and wants it back.
func echoes(address string) error { return echoesOver("udp", address) }

// echoesOver is echoes for a network.
func echoesOver(network, address string) error {
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	const text = "a datagram"
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err == nil && string(b[:n]) != text {
		err = fmt.Errorf("%s says %q, want %q", address, b[:n], text)
	}
	return err
}

// TestPodmanUserNamespaces: the network namespace belongs to a user namespace below that of Podman's pause process.
func TestPodmanUserNamespaces(t *testing.T) {
	p := newPodman(t, "crun")
	if r := p.try("podman", "run", "--rm", "--network", "slirp4netns:foo=bar", "bb:1", "true"); r.code != 126 ||
		!strings.Contains(r.stderr, "unknown option") {
		t.Errorf("an unknown option: %v", r)
	}
	p.ok("podman", "run", "-d", "--name", "web", "--userns", "keep-id", "--network",
		"slirp4netns:port_handler=slirp4netns", "-p", "18485:8080",
		"-p", "18486:83/udp", "--user", "0", "bb:1", "sh", "-c",
		"helper udpserve :83 & exec httpd -f -p 8080 -h /var/www")
	eventually(t, func() error { return says("http://127.0.0.1:18485/", "container\n") })
	eventually(t, func() error { return echoes("127.0.0.1:18486") })
	p.ok("podman", "system", "migrate") // which ends containers, and what connects them
	eventually(t, func() error { return refuses("127.0.0.1:18485") })
	p.ok("podman", "start", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18485/", "container\n") })
	p.ok("podman", "rm", "--force", "--time", "0", "web") // --userns auto takes ids that no container has
	for _, mode := range []string{"keep-id", "auto", "nomap"} {
		out := p.run("--userns", mode, "--network", "slirp4netns", "bb:1", "sh", "-c",
			"ip addr show tap0; wget -qO- http://192.0.2.1:8000/")
		if !strings.Contains(out, "10.0.2.100/24") || !strings.Contains(out, "outside") {
			t.Errorf("--userns %s: %s", mode, out)
		}
	}
}

// TestPodmanBridge: named networks are kernel bridges in a namespace that slirp4netns connects.
func TestPodmanBridge(t *testing.T) {
	p := newPodman(t, "crun")
	p.ok("podman", "network", "create", "lan")
	p.ok("podman", "run", "-d", "--name", "web", "--network", "lan", "-p", "18490:80", "bb:1", "httpd", "-f", "-p",
		"80", "-h", "/var/www")
	eventually(t, func() error { return says("http://127.0.0.1:18490/", "container\n") })
	out := p.run("--network", "lan", "bb:1", "sh", "-c", "wget -qO- http://192.0.2.1:8000/")
	if out != "outside" {
		t.Errorf("out of the bridge: %q", out)
	}
	p.ok("podman", "restart", "--time", "0", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18490/", "container\n") })
	p.ok("podman", "rm", "--force", "--time", "0", "web")
	eventually(t, func() error { return refuses("127.0.0.1:18490") })
}

// pod is a pod of two containers; %d is the host's port.
const pod = `apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  containers:
  - {name: web, image: localhost/bb:1, command: [httpd, -f, -p, "80", -h, /var/www], ports: [{containerPort: 80, hostPort: %d}]}
  - {name: idle, image: localhost/bb:1, command: [sleep, "600"]}
`

// TestPodmanPlaysAPod: two containers share one namespace.
func TestPodmanPlaysAPod(t *testing.T) {
	newPodman(t, "crun").playAPod("slirp4netns", 18495)
}

func (p *podman) playAPod(network string, port int) {
	p.t.Helper()
	file := filepath.Join(p.dir, "pod.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, pod, port), 0o644); err != nil {
		p.t.Fatal(err)
	}
	p.ok("podman", "play", "kube", "--network", network, file)
	eventually(p.t, func() error { return says(fmt.Sprintf("http://127.0.0.1:%d/", port), "container\n") })
	if out := p.ok("podman", "exec", "pair-idle", "wget", "-qO-", "http://127.0.0.1/"); out != "container" {
		p.t.Errorf("the neighbour in the pod says %q", out)
	}
	p.ok("podman", "play", "kube", "--down", file)
	eventually(p.t, func() error { return refuses(fmt.Sprintf("127.0.0.1:%d", port)) })
}

// TestIntegratePodman: what `usernet integrate podman --write` writes is enough, and --undo takes it back.
func TestIntegratePodman(t *testing.T) { integratesPodman(t, "{{.Host.Slirp4NetNS.Version}}") }

// TestPodman5Integrate: the same, for pasta.
func TestPodman5Integrate(t *testing.T) { integratesPodman(t, "{{.Host.Pasta.Version}}") }

func integratesPodman(t *testing.T, ask string) {
	p := configurePodman(t, "crun", "")
	version := func() string { return p.ok("podman", "info", "-f", ask) }
	if v := version(); strings.Contains(v, "usernet") {
		t.Fatalf("before: %s", v)
	}
	p.ok(usernet, "integrate", "podman", "--write")
	if v := version(); !strings.Contains(v, "usernet") {
		t.Errorf("podman does not call usernet: %s", v)
	}
	p.ok("podman", "network", "create", "lan")
	p.ok("podman", "run", "-d", "--name", "web", "--network", "lan", "-p", "18520:80", "bb:1", "helper", "tcpserve",
		":80", "addr")
	eventually(t, func() error {
		if seen := fromOutside(t, "tcp", "192.0.2.2:18520"); !strings.HasPrefix(seen, "192.0.2.1:") {
			return fmt.Errorf("podman does not call usernet in rootlessport's place: the service sees %q", seen)
		}
		return nil
	})
	p.ok("podman", "rm", "--force", "--time", "0", "web")
	p.ok(usernet, "integrate", "podman", "--undo")
	if v := version(); strings.Contains(v, "usernet") {
		t.Errorf("after --undo: %s", v)
	}
}
