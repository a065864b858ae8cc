package engines

import (
	"strings"
	"testing"
)

// TestPodman5OverNetavarkPlugin has networks of the driver usernet: names, addresses, IPv6, ports, several networks, an
// internal one.
func TestPodman5OverNetavarkPlugin(t *testing.T) {
	p := newPodman5(t)
	_, end := p.daemon()
	p.ok(usernet, "integrate", "netavark", "--write")
	p.ok("podman", "network", "create", "-d", "usernet", "--subnet", "10.88.7.0/24", "--ipv6", "--subnet",
		"fd00:88::/64", "un1")
	p.ok("podman", "network", "create", "-d", "usernet", "--internal", "un2")
	if r := p.try("podman", "run", "--rm", "--network", "un1:ip=10.99.7.9", "bb:1", "true"); r.code == 0 ||
		!strings.Contains(r.stderr, "10.99.7.9") {
		t.Errorf("an address of no subnet: %v", r)
	}
	if out := p.ok(usernet, "network", "inspect", "un1"); !strings.Contains(out, "10.88.7.0/24") || !strings.Contains(
		out, "fd00:88::/64") {
		t.Errorf("usernet's network:\n%s", out)
	}
	p.ok("podman", "run", "-d", "--name", "web", "--network", "un1:ip=10.88.7.9,mac=02:00:00:00:00:09,alias=shop", "-p",
		"18495:80", "bb:1",
		"httpd", "-f", "-p", "80", "-h", "/var/www")
	p.expect([]string{"container\ncontainer\ncontainer\noutside"}, nil, "--network", "un1", "bb:1", "sh", "-c",
		"wget -qO- http://web/; wget -qO- http://shop/; wget -qO- http://10.88.7.9/; wget -qO- http://192.0.2.1:8000/")
	p.expect([]string{"eth0", "eth1", "10.88.7.", "fd00:88::"}, nil, "--network", "un1", "--network", "un2", "bb:1",
		"ip", "-o", "addr")
	if out := p.ok("podman", "run", "--rm", "--network", "un1", "--network", "un2", "bb:1", "grep", "nameserver",
		"/etc/resolv.conf"); out != "nameserver 127.0.0.11" {
		t.Errorf("name servers on two networks: %q", out)
	}
	if r := p.try("podman", "run", "--rm", "--network", "un2", "bb:1", "wget", "-T", "5", "-qO-",
		"http://192.0.2.1:8000/"); r.code == 0 {
		t.Errorf("an internal network leads outside: %v", r)
	}
	eventually(t, func() error { return says("http://127.0.0.1:18495/", "container\n") })
	p.ok("podman", "restart", "--time", "0", "web")
	eventually(t, func() error { return says("http://127.0.0.1:18495/", "container\n") })
	if out := p.ok(usernet, "ps", "--format", "{{.Names}}"); out != "web" {
		t.Errorf("usernet sees %q", out)
	}
	p.ok("podman", "run", "-d", "--name", "app", "--network", "un1", "bb:1", "sleep", "1000")
	end = p.removesWithoutDaemon(end, func(name string) {
		p.ok("podman", "run", "-d", "--name", name, "--network", "un1", "--network", "un2", "bb:1", "sleep", "1000")
	}, func(name string) { p.ok("podman", "rm", "--force", "--time", "0", name) })
	talkers{t: t, u: p.user, exec: podmanExec}.survive(end, "app", "web", "http://127.0.0.1:18495/")
	p.ok("podman", "rm", "--force", "--time", "0", "web", "app")
	if out := p.ok(usernet, "ps", "-aq"); out != "" {
		t.Errorf("left after podman rm: %q", out)
	}
}
