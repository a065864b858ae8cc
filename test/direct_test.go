package test

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// counter is one of those that info shows.
func (d *daemon) counter(name string) int {
	d.t.Helper()
	match := regexp.MustCompile(name + `: (\d+)`).FindStringSubmatch(d.ok("info"))
	if match == nil {
		d.t.Fatalf("info does not count %s", name)
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// direct is how many connections went through published ports without the gateway between.
func (d *daemon) direct() int {
	d.t.Helper()
	return d.counter("published_direct")
}

// makeDirect connects to a port until connections to it are direct.
func (d *daemon) makeDirect(target string) {
	d.t.Helper()
	before := d.direct()
	eventually(d.t, func() error {
		d.command(helper, "tcpdial", target)
		if d.direct() == before {
			return fmt.Errorf("no connection to %s is direct", target)
		}
		return nil
	})
}

func TestDirectPorts(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "dual")
	port := freePort()
	d.serve("web", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:81", port+1), "-p", fmt.Sprintf("%d:82", port+2),
		"-p", fmt.Sprintf("%d:83", port+3)},
		"sh", "-c", fmt.Sprintf("%[1]s tcpserve :81 digest & %[1]s tcpserve :82 & %[1]s tcpserve :80 addr", helper))
	d.makeDirect(fmt.Sprintf("127.0.0.1:%d", port))
	d.makeDirect(fmt.Sprintf("[::1]:%d", port))

	here := func(args ...string) string { return d.command(helper, args...).stdout }
	there := func(args ...string) string { return atPeer(t, helper+" "+strings.Join(args, " ")) }
	gateway6 := strings.Fields(d.field(`default via (\S+)`, "web", "ip", "-6", "route"))[0]
	for _, test := range []struct {
		name   string
		client func(...string) string
		target string
		source string
	}{
		{"another machine", there, host4, peer4},
		{"another machine, IPv6", there, host6, peer6},
		{"the host's loopback", here, "127.0.0.1", d.gateway("web")},
		{"the host's loopback, IPv6", here, "::1", gateway6},
		{"the host's own address", here, host4, d.gateway("web")},
	} {
		t.Run("source: "+test.name, func(t *testing.T) {
			d := d.in(t)
			before := d.direct()
			if out := test.client("tcpdial", net.JoinHostPort(test.target, fmt.Sprint(port))); !sourceIs(out, test.source) {
				t.Errorf("the service sees %q, want %s", out, test.source)
			}
			if d.direct() != before+1 {
				t.Error("the connection was not direct")
			}
		})
	}
	t.Run("half-close and digest", func(t *testing.T) {
		d := d.in(t)
		if r := d.command(helper, "tcpsend", fmt.Sprintf("127.0.0.1:%d", port+1), "30000000"); !strings.Contains(r.stdout, "same 30000000") {
			t.Errorf("%v", r)
		}
		if out := there("tcpsend", fmt.Sprintf("%s:%d", host4, port+1), "30000000"); !strings.Contains(out, "same 30000000") {
			t.Errorf("from another machine: %s", out)
		}
	})
	t.Run("refused", func(t *testing.T) {
		if out := here("tcpdial", fmt.Sprintf("127.0.0.1:%d", port+3)); !strings.Contains(out, "ECONNRE") {
			t.Errorf("a closed port: %s", out)
		}
	})
	t.Run("flows tell", func(t *testing.T) {
		d := d.in(t)
		held := d.keep(helper, "tcphold", fmt.Sprintf("127.0.0.1:%d", port+2), "stdin")
		fmt.Fprint(held, "12345")
		eventually(t, func() error {
			if out := d.ok("flows"); !regexp.MustCompile(`web +tcp +in .* direct +5B +5B`).MatchString(out) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		held.Close()
	})
	t.Run("it ends with its container", func(t *testing.T) {
		d := d.in(t)
		held := d.keep(helper, "tcphold", fmt.Sprintf("127.0.0.1:%d", port+2), "stdin")
		eventually(t, func() error {
			if !strings.Contains(d.ok("flows", "web"), "direct") {
				return fmt.Errorf("not connected")
			}
			return nil
		})
		d.ok("rm", "-f", "web") // ends its connections
		held.Close()
		eventually(t, func() error {
			if out := d.ok("flows"); strings.Contains(out, "tcp") {
				return fmt.Errorf("a flow outlives its container: %s", out)
			}
			return nil
		})
	})
	t.Run("not where it was switched off", func(t *testing.T) {
		d := d.in(t)
		d.ok("network", "create", "-o", "usernet.direct_ports=false", "indirect")
		d.serve("web2", []string{"--network", "indirect", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
		before := d.direct()
		for range 20 {
			if out := here("tcpdial", fmt.Sprintf("127.0.0.1:%d", port)); !strings.HasPrefix(out, "ok") {
				t.Fatal(out)
			}
		}
		if d.direct() != before {
			t.Error("connections were direct")
		}
	})
}
