package test

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ownServer is a DNS server at 0.0.0.0:53, UDP and TCP, that knows one name.
var ownServer = []string{
	"dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root", "--group=root", "--port=53",
	"--address=/own.test/203.0.113.53", "--log-facility=-",
}

// asksStub checks that the stub answers names of containers and of the outside, over both transports.
func (d *daemon) asksStub(when, container, name, address string) {
	d.t.Helper()
	for _, transport := range []string{"+notcp", "+tcp"} {
		for question, want := range map[string]string{name: address, "www.example.test": host4} {
			if r := d.exec(container, "dig", "+short", "+tries=1", transport, "@127.0.0.11",
				question); strings.TrimSpace(r.stdout) != want {
				d.t.Errorf("%s: %s %s: want %s: %v", when, question, transport, want, r)
			}
		}
	}
	d.says(address, container, "getent", "ahostsv4", name)
}

// asksOwn checks that the container's server is reached at all its addresses but the stub's.
func (d *daemon) asksOwn(when, container, from string) {
	d.t.Helper()
	for _, transport := range []string{"+notcp", "+tcp"} {
		for at, by := range map[string]string{"127.0.0.1": container, d.address(container): from} {
			if r := d.exec(by, "dig", "+short", "+tries=1", transport, "@"+at, "own.test"); strings.TrimSpace(
				r.stdout) != "203.0.113.53" {
				d.t.Errorf("%s: the container's own server at %s, %s: %v", when, at, transport, r)
			}
		}
	}
}

// TestPort53IsTheContainers is about containers that serve names themselves, at all addresses as most servers do.
func TestPort53IsTheContainers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("web", "--network", "mynet")
	d.container("names", []string{"--network", "mynet"}, ownServer...)
	eventually(t, func() error {
		if r := d.exec("names", "dig", "+short", "+tries=1", "@127.0.0.1", "own.test"); strings.TrimSpace(r.stdout) !=
			"203.0.113.53" {
			return fmt.Errorf("the container's own server is not there: %v\n%v", r, d.try("logs", "names"))
		}
		return nil
	})
	check := func(when string) {
		t.Helper()
		d.asksStub(when, "names", "web", d.address("web"))
		d.asksOwn(when, "names", "web")
	}
	check("at first")

	// Rules of the container's own: what they see is port 53, and connection tracking sees whole connections.
	rules := `flush ruleset
table inet own {
	chain input { type filter hook input priority 0; policy drop; ct state established accept; iif lo udp dport 53 accept; iif lo tcp dport 53 accept; iif eth0 accept; }
	chain output { type filter hook output priority 0; policy drop; ct state invalid drop; ct state established accept; udp dport 53 accept; tcp dport 53 accept; icmp type echo-reply accept; }
	chain nat { type nat hook postrouting priority 100; policy accept; ip daddr 198.18.0.0/15 masquerade; }
}
`
	d.command("sh", "-c", `printf '%s' "$2" | "$0" exec -i "$1" nft -f -`, usernet, "names", rules)
	if r := d.exec("names", "nft", "list", "ruleset"); !strings.Contains(r.stdout, "table inet own") {
		t.Fatalf("the container's rules are not there: %v", r)
	}
	check("with rules of the container's own")

	d.stop(syscall.SIGKILL)
	d.start()
	check("after a kill and a start")
	d.stop(syscall.SIGTERM)
	d.start()
	check("after an end and a start")
	d.flags = append(d.flags, "--takeover")
	d.takeOver()
	check("after a takeover")
	d.command(usernet, "exec", "names", "nft", "flush", "ruleset")
	check("after the rules were flushed")
	d.ok("network", "create", "second")
	d.ok("network", "connect", "second", "names")
	d.ok("network", "disconnect", "mynet", "names")
	d.ok("network", "connect", "mynet", "names")
	check("after networks came and went")
}

// TestStubInForeignSandboxes is about sandboxes that somebody else made: what serves names there goes on, and nothing
// is left.
func TestStubInForeignSandboxes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("web", "--network", "mynet")
	start := func(f foreign, command ...string) {
		t.Helper()
		args := append([]string{"--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(f.pid)},
			command...)
		cmd := exec.Command("nsenter", args...)
		cmd.Env = d.environ()
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if command[0] == "nft" {
			_, _ = io.WriteString(in, "add table ip usernet-dns { flags owner; }\n")
		}
		t.Cleanup(func() {
			in.Close()
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	answers := func(f foreign, server, name string) string {
		return strings.TrimSpace(f.run("dig", "+short", "+tries=1", "+time=2", "@"+server, name).stdout)
	}
	up := func(f foreign) { f.run("ip", "link", "set", "lo", "up") }
	own := func(f foreign, server string) {
		t.Helper()
		eventually(t, func() error {
			if got := answers(f, server, "own.test"); got != "203.0.113.53" {
				return fmt.Errorf("the sandbox's own server at %s says %q", server, got)
			}
			return nil
		})
	}
	attach := func(f foreign) {
		t.Helper()
		d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext", "--network", "mynet")
	}
	t.Run("a server at all addresses", func(t *testing.T) {
		d.t = t // for what is started in the subtest
		f := startForeign(d)
		up(f)
		start(f, ownServer...)
		own(f, "127.0.0.1")
		attach(f)
		own(f, "127.0.0.1")
		if got := answers(f, "127.0.0.11", "web"); got != d.address("web") {
			t.Errorf("the stub says %q", got)
		}
		d.ok("detach", "ext")
		own(f, "127.0.0.11") // as before
		if r := f.run("nft", "list", "ruleset"); r.stdout != "" {
			t.Errorf("rules are left: %v", r)
		}
	})
	t.Run("a server at the stub's address", func(t *testing.T) {
		d.t = t
		f := startForeign(d)
		up(f)
		start(f, append(ownServer, "--bind-interfaces", "--listen-address=127.0.0.11")...)
		own(f, "127.0.0.11")
		attach(f)
		own(f, "127.0.0.11")
		d.ok("detach", "ext")
	})
	t.Run("no rules are possible", func(t *testing.T) {
		d.t = t
		f := startForeign(d)
		up(f)
		start(f, "nft", "-i") // owns the table
		eventually(t, func() error {
			if r := f.run("nft", "list", "tables"); !strings.Contains(r.stdout, "usernet-dns") {
				return fmt.Errorf("the table is not there: %v", r)
			}
			return nil
		})
		attach(f)
		if got := answers(f, "127.0.0.11", "web"); got != d.address("web") {
			t.Errorf("the stub says %q", got)
		}
		d.ok("detach", "ext")
	})
	d.t = t
}
