package test

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// resolves checks that a container gets an answer for name, and that it is not the egress policy's.
func (d *daemon) resolves(container, name, address string) {
	d.t.Helper()
	d.says(address, container, "dig", "+short", "+tries=1", name)
}

// mayNotAsk checks that a question for name is refused at once and that nobody outside hears of it.
func (d *daemon) mayNotAsk(container string, question ...string) {
	d.t.Helper()
	before := queries.Load()
	r := d.exec(container, append([]string{"dig", "+tries=1"}, question...)...)
	for _, want := range []string{"status: NXDOMAIN", "EDE: 15 (Blocked): (egress policy: --egress deny",
		"--allow-egress NAME"} {
		if !strings.Contains(r.stdout, want) {
			d.t.Errorf("%s asks for %v, wanted %q: %v", container, question, want, r)
		}
	}
	if n := queries.Load() - before; n != 0 {
		d.t.Errorf("%s asks for %v: %d questions reached the host's resolver", container, question, n)
	}
}

// TestEgressPolicyForNames is about DNS as a way out. No search domain: names that are allowed are below it.
func TestEgressPolicyForNames(t *testing.T) {
	lookup := filepath.Join(t.TempDir(), "lookup")
	if out, err := exec.Command("musl-gcc", "-static", "-O1", "-o", lookup,
		"testdata/lookup.c").CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc: %v\n%s", err, out)
	}
	d := startDaemon(t)
	port := freePort()
	listen(t, net.JoinHostPort(host4, fmt.Sprint(port)), func(c *net.TCPConn) { c.Close() })
	www := fmt.Sprintf("www.example.test:%d", port)
	d.ok("network", "create", "--ipv6", "--egress", "deny", "--allow-egress", fmt.Sprintf("*.example.test:%d", port),
		"closed")
	d.ok("network", "create", "opened")
	d.ok("network", "create", "--internal", "inner")
	d.ok("network", "create", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "routeless")
	d.idle("build", "--network", "closed", "--dns-search", ".")
	d.idle("exact", "--egress", "deny", "--allow-egress", "alias.example.test")
	d.idle("any", "--egress", "deny", "--allow-egress", "dns")
	d.idle("subnet", "--network", "closed", "--allow-egress", "192.0.2.0/24")
	d.idle("neighbour", "--network", "closed", "--host-loopback")

	t.Run("every way to ask", func(t *testing.T) {
		d := d.in(t)
		gateway6 := d.field(`default via ([0-9a-f:]+)`, "build", "ip", "-6", "route")
		for _, server := range []string{"127.0.0.11", d.gateway("build"), gateway6, "10.0.2.3"} {
			for _, transport := range []string{"+notcp", "+tcp"} {
				d.mayNotAsk("build", transport, "@"+server, "secret.other.test")
				d.says(d.address("neighbour"), "build", "dig", "+short", "+tries=1", transport, "@"+server, "neighbour")
				d.says(host4, "build", "dig", "+short", "+tries=1", transport, "@"+server, "www.example.test")
			}
		}
		d.mayNotAsk("neighbour", "@"+d.gateway("neighbour"), "other.test") // its port 53 is not the host's
		for _, question := range []string{"other.test TXT", "example.test", "com NS", ". NS", "-x 192.0.2.100",
			"-c CH version.bind TXT"} {
			d.mayNotAsk("build", strings.Fields(question)...)
		}
	})
	t.Run("what programs say", func(t *testing.T) {
		d := d.in(t)
		before := queries.Load()
		for _, test := range []struct {
			want    string
			command []string
		}{
			// "one or more supplied key could not be found"
			{"exit status 2", []string{"getent", "ahosts", "a.other.test"}},
			{"does not resolve", []string{lookup, "b.other.test"}},
			{"NXDOMAIN", []string{"busybox", "nslookup", "c.other.test"}},
			{"Could not resolve host", []string{"curl", "-sS", "http://d.other.test/"}},
			{"no such host", []string{helper, "tcpdial", "e.other.test:80", "20s"}},
		} {
			if r := d.exec("build", test.command...); !strings.Contains(r.String(), test.want) {
				t.Errorf("wanted %q: %v", test.want, r)
			}
		}
		if n := queries.Load() - before; n != 0 {
			t.Errorf("%d questions reached the host's resolver", n)
		}
		for _, command := range [][]string{{"getent", "ahosts", "www.example.test"}, {lookup, "www.example.test"},
			{"busybox", "nslookup", "www.example.test"}} {
			d.says(host4, "build", command...)
		}
	})
	t.Run("what is allowed connects", func(t *testing.T) {
		d := d.in(t)
		if got := d.reaches("build", www); got != "ok" {
			t.Errorf("a wildcard: %s", got)
		}
		if got := d.reaches("exact", fmt.Sprintf("alias.example.test:%d", port)); got != "ok" {
			t.Errorf("an alias: %s", got)
		}
		d.mayNotAsk("exact", "www.example.test") // what it is an alias of
	})
	t.Run("all names and no destination", func(t *testing.T) {
		d := d.in(t)
		d.resolves("any", "www.example.test", host4)
		if got := d.reaches("any", www); got != "ECONNREFUSED" {
			t.Errorf("by name: %s", got)
		}
	})
	t.Run("names of addresses that are allowed", func(t *testing.T) {
		d := d.in(t)
		d.says("peer.example.test.", "subnet", "dig", "+short", "+tries=1", "-x", peer4)
		d.mayNotAsk("subnet", "-x", "198.51.100.1")
	})
	t.Run("a network that comes and goes", func(t *testing.T) {
		d := d.in(t)
		d.ok("network", "connect", "inner", "build") // these two lead nowhere
		d.ok("network", "connect", "routeless", "build")
		d.mayNotAsk("build", "other.test")
		before := queries.Load()
		d.ok("network", "connect", "opened", "build")
		d.exec("build", "dig", "+tries=1", "other.test")
		if queries.Load() == before {
			t.Error("with a network that is open, the question did not leave")
		}
		d.ok("network", "disconnect", "opened", "build")
		d.mayNotAsk("build", "other.test")
	})
	t.Run("it is logged and counted", func(t *testing.T) {
		d := d.in(t)
		eventually(t, func() error { return fileHas(d.dir+"/log", "name=other.test rule=\"--egress deny") })
		if out := d.ok("info"); strings.Contains(out, "dns_refused: 0\n") || !strings.Contains(out, "dns_refused: ") {
			t.Errorf("info does not count: %s", out)
		}
		if out := d.ok("dns", "query", "--as", "build", "other.test"); !strings.Contains(out, "from egress policy") {
			t.Errorf("dns query: %s", out)
		}
	})
	t.Run("it is kept over a kill", func(t *testing.T) {
		d.t = t
		d.stop(syscall.SIGKILL)
		d.start()
		d.mayNotAsk("build", "other.test")
		d.resolves("build", "www.example.test", host4)
	})
}
