package test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// dnsmasq starts one on the peer that answers one address for a domain, and returns what ends it.
func dnsmasq(t *testing.T, port int, domain, address string) (end func()) {
	t.Helper()
	pid := strings.TrimSpace(atPeer(t, fmt.Sprintf("dnsmasq --no-daemon --no-resolv --no-hosts --pid-file= --bind-interfaces --listen-address=%s --port=%d "+
		"--address=/%s/%s --local-ttl=60 >/dev/null 2>&1 & echo $!", peer4, port, domain, address)))
	ended := false
	end = func() {
		if !ended {
			ended = true
			asRoot(t, "kill -9 "+pid+" || true")
		}
	}
	t.Cleanup(end)
	return end
}

// looksUp waits until a container gets an answer to a question for an address.
func (d *daemon) looksUp(t *testing.T, container, name, address string) {
	t.Helper()
	eventually(t, func() error {
		if r := d.exec(container, "dig", "+short", "+tries=1", "+time=5", name); strings.TrimSpace(r.stdout) !=
			address {
			return fmt.Errorf("%s is not %s: %v", name, address, r)
		}
		return nil
	})
}

func TestUpstreamsThatComeAndGo(t *testing.T) {
	t.Parallel()
	first, second := freePort(), freePort()
	d := startDaemon(t, "--dns", fmt.Sprintf("%s:%d", peer4, first), "--dns", fmt.Sprintf("%s:%d", peer4, second),
		"--dns-cache", "0")
	d.idle("box")
	end := dnsmasq(t, first, "masq.test", "203.0.113.1")
	dnsmasq(t, second, "masq.test", "203.0.113.2")
	d.looksUp(t, "box", "a.masq.test", "203.0.113.1")
	end()
	d.looksUp(t, "box", "a.masq.test", "203.0.113.2")
	dnsmasq(t, first, "masq.test", "203.0.113.3") // replaced
	d.looksUp(t, "box", "a.masq.test", "203.0.113.3")
	for _, tool := range [][]string{{"getent", "ahostsv4", "a.masq.test"},
		{"busybox", "nslookup", "-type=a", "a.masq.test"}, {"dig", "+tcp", "+short", "a.masq.test"}} {
		d.says("203.0.113.3", "box", tool...)
	}
}

func TestHostsResolversAreFollowed(t *testing.T) {
	d := startDaemon(t)
	d.idle("box")
	d.looksUp(t, "box", "www.example.test", host4)
	dnsmasq(t, 53, "example.test", "203.0.113.4")
	before := asRoot(t, "cat /etc/resolv.conf")
	restore := func() { asRoot(t, "cat > /etc/resolv.conf <<EOF\n"+before+"\nEOF\n") }
	t.Cleanup(restore)
	asRoot(t, "echo nameserver "+peer4+" > /etc/resolv.conf")
	d.looksUp(t, "box", "www.example.test", "203.0.113.4")
	asRoot(t, ": > /etc/resolv.conf")
	eventually(t, func() error {
		if r := d.exec("box", "dig", "+tries=1", "+time=5", "www.example.test"); !strings.Contains(r.stdout,
			"SERVFAIL") {
			return fmt.Errorf("without servers: %v", r)
		}
		return nil
	})
	restore()
	d.looksUp(t, "box", "www.example.test", host4)
}

func TestCacheAndQuery(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("web", "--network", "mynet")
	d.idle("box", "--network", "mynet")
	before := queries.Load()
	for range 5 {
		d.says(host4, "box", "dig", "+short", "www.example.test")
	}
	if n := queries.Load() - before; n != 1 {
		t.Errorf("five equal questions became %d", n)
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"--as", "box", "web"}, []string{d.address("web"), "NOERROR, 1 records, from zone"}},
		// dig asks with another bit
		{[]string{"--as", "box", "www.example.test"}, []string{host4, "from upstream " + resolver + ":53"}},
		{[]string{"--as", "box", "www.example.test"}, []string{host4, "from cache"}},
		{[]string{"--as", "box", "example.test", "MX"},
			[]string{"10 www.example.test.", "from upstream " + resolver + ":53"}},
		{[]string{"web"}, []string{"NXDOMAIN", "from upstream " + resolver}}, // no container is asked as
		{[]string{"--json", "--as", "box", "web"}, []string{`"source": "zone"`}},
	} {
		out := d.ok(append([]string{"dns", "query"}, test.args...)...)
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("dns query %v lacks %q: %s", test.args, want, out)
			}
		}
	}
	d.fails("unknown record type", "dns", "query", "web", "NONSENSE")
	if out := d.ok("info"); !strings.Contains(out, "dns_cache_hits: ") {
		t.Errorf("info does not count: %s", out)
	}
}

// TestOtherServersAddresses is for sandboxes whose resolv.conf usernet does not write.
func TestOtherServersAddresses(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "mynet")
	d.idle("web", "--network", "mynet")
	d.idle("box", "--network", "mynet")
	// A network where that address is somebody's: the gateway's own.
	d.ok("network", "create", "--subnet", "10.0.2.0/24", "--gateway", "10.0.2.3", "slirplike")
	d.idle("there", "--network", "slirplike")
	d.says(d.address("there"), "there", "dig", "+short", "+tries=1", "@10.0.2.3", "there")
	for _, server := range []string{d.gateway("box"), "10.0.2.3"} {
		for _, transport := range []string{"+notcp", "+tcp"} {
			d.says(d.address("web"), "box", "dig", "+short", "+tries=1", transport, "@"+server, "web")
			d.says(host4, "box", "dig", "+short", "+tries=1", transport, "@"+server, "www.example.test")
		}
	}
}

func TestWhatNeverLeaves(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("box", "--network", "mynet", "--dns-option", "ndots:1")
	d.idle("plain", "--dns-option", "ndots:1") // on the default bridge
	before := queries.Load()
	for _, container := range []string{"box", "plain"} {
		for _, question := range []string{"unknown", "localhost", "a.localhost", "-x 172.18.0.99", "-x 172.17.0.99"} {
			d.exec(container, append([]string{"dig", "+tries=1"}, strings.Fields(question)...)...)
		}
	}
	if n := queries.Load() - before; n != 0 {
		t.Errorf("%d of them reached the host's resolver", n)
	}
}

// TestNamesOfOneLabel is about names that the local network's server knows, as with Docker.
func TestNamesOfOneLabel(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("plain")
	d.idle("box", "--network", "mynet")
	d.idle("dots", "--network", "mynet", "--dns-option", "ndots:1")
	d.idle("nodots", "--network", "mynet", "--dns-option", "ndots:0")
	for _, container := range []string{"plain", "box", "nodots"} {
		for _, tool := range [][]string{{"getent", "ahostsv4", "printer"}, {"dig", "+short", "printer"},
			{"dig", "+short", "+tcp", "printer"}} {
			d.says("192.0.2.77", container, tool...)
		}
	}
	d.says("status: NXDOMAIN", "dots", "dig", "printer")
	d.says(d.address("box"), "dots", "dig", "+short", "box")
	d.says("status: NXDOMAIN", "box", "dig", "unknown") // the server's word
	d.ok("network", "create", "--internal", "inner")
	d.idle("inside", "--network", "inner")
	d.says("status: NXDOMAIN", "inside", "dig", "printer")
}

// TestNoRebind is about public names that lead into private networks.
func TestNoRebind(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--egress", "no-rebind", "strict")
	d.idle("open")
	d.idle("strict", "--network", "strict")
	d.idle("knows", "--network", "strict", "--allow-egress", "rebind.example.com")
	d.idle("both", "--egress", "deny,no-rebind", "--allow-egress", "dns")
	d.says("192.168.77.7", "open", "dig", "+short", "rebind.example.com")
	d.says("192.168.77.7", "knows", "dig", "+short", "rebind.example.com")
	for _, container := range []string{"strict", "both"} {
		for _, server := range []string{"127.0.0.11", d.gateway(container)} {
			r := d.exec(container, "dig", "@"+server, "rebind.example.com")
			if !strings.Contains(r.stdout, "status: NOERROR") || !strings.Contains(r.stdout, peer4) ||
				strings.Contains(r.stdout, "192.168.77.7") ||
				!strings.Contains(r.stdout, "EDE: 17 (Filtered): (egress policy: --egress no-rebind") {
				t.Errorf("%s asks %s: %v", container, server, r)
			}
		}
		if r := d.exec(container, "dig", "+short", "own.example.com"); r.stdout != "" {
			t.Errorf("%s: the host's own address is the answer for a public name: %v", container, r)
		}
		d.says(host4, container, "dig", "+short", "www.example.test") // no public name
	}
	if out := d.ok("dns", "query", "--as", "strict", "rebind.example.com"); strings.Contains(out, "192.168.77.7") {
		t.Errorf("dns query: %s", out)
	}
	d.fails("give allow or deny", "network", "create", "--egress", "no-rebind,deny", "bad")
	d.fails("give allow or deny", "run", "--rm", "--egress", "rebind", "--", "true")
	d.stop(syscall.SIGKILL)
	d.start()
	if r := d.exec("strict", "dig", "+short", "own.example.com"); r.stdout != "" {
		t.Errorf("after a kill, the host's own address is the answer for a public name: %v", r)
	}
}

func TestSplitDNS(t *testing.T) {
	t.Parallel()
	corp, lab := freePort(), freePort()
	dnsmasq(t, corp, "corp.test", "203.0.113.5")
	dnsmasq(t, lab, "lab.test", "203.0.113.6")
	d := startDaemon(t, "--dns-domain", fmt.Sprintf("corp.test=%s:%d", peer4, corp))
	d.ok("network", "create", "--dns", fmt.Sprintf("%s:%d", peer4, lab), "labnet")
	d.idle("box")
	d.idle("labbox", "--network", "labnet")
	d.looksUp(t, "box", "x.corp.test", "203.0.113.5")
	d.looksUp(t, "box", "www.example.test", host4)
	d.looksUp(t, "labbox", "x.lab.test", "203.0.113.6")
	d.looksUp(t, "labbox", "x.corp.test", "203.0.113.5")
	d.fails("give an IP address", "run", "--rm", "--dns", "nonsense", "--", "true")
	d.fails("give an IP address", "network", "create", "--dns", "nonsense", "bad")
	if out, err := os.ReadFile("/etc/resolv.conf"); err != nil || !strings.Contains(string(out), resolver) {
		t.Errorf("the host's own file: %s %v", out, err)
	}
}
