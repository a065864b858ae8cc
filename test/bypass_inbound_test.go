package test

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
)

// counter is one of those that info shows.
func (d *daemon) counter(name string) int {
	d.t.Helper()
	var info api.Info
	d.ask("/usernet/info", &info)
	n, err := info.Counters[name].Int64()
	if err != nil {
		d.t.Fatalf("info does not count %s: %v", name, err)
	}
	return int(n)
}

// direct is how many connections went through published ports without the gateway between.
func (d *daemon) direct() int {
	d.t.Helper()
	return d.counter("tcp_bypass_inbound")
}

// makeDirect connects to a port until connections to it are direct.
func (d *daemon) makeDirect(target string) {
	d.t.Helper()
	d.once("tcp_bypass_inbound", func() { d.command(helper, "tcpdial", target) })
}

// once does something until a counter has grown by it. On a busy machine a connection may go by the gateway, which is
// no failure; what do looks at holds for both ways.
func (d *daemon) once(counter string, do func()) {
	d.t.Helper()
	eventually(d.t, func() error {
		before := d.counter(counter)
		do()
		if !d.t.Failed() && d.counter(counter) == before {
			return fmt.Errorf("%s does not grow", counter)
		}
		return nil
	})
}

// tcpFlows are the TCP connections of a container, or of all with "", by their ends.
func (d *daemon) tcpFlows(container string) map[string]api.Flow {
	d.t.Helper()
	list := map[string]api.Flow{}
	for _, f := range d.flows(container) {
		if f.Proto == "tcp" {
			list[fmt.Sprint(f.Inside, f.Outside)] = f
		}
	}
	return list
}

// bypassPath as a path is that of connections over the bypass.
const bypassPath = "bypass"

// pastTheGateway returns a connection that connect has made and that goes over the bypass. Those that a busy machine
// had go by the gateway are closed.
func (d *daemon) pastTheGateway(connect func() *held) (h *held) {
	d.t.Helper()
	eventually(d.t, func() error {
		before := d.tcpFlows("")
		h = connect()
		var made *api.Flow
		eventually(d.t, func() error { // a client of a published port is connected before the daemon has accepted it
			for key, f := range d.tcpFlows("") {
				if _, ok := before[key]; !ok && f.State != "opening" {
					made = &f
					return nil
				}
			}
			return fmt.Errorf("%s: the connection is not listed", h.name)
		})
		if made.Path == bypassPath {
			return nil
		}
		h.in.Close()
		return fmt.Errorf("%s goes by the gateway", h.name)
	})
	return h
}

func TestBypassInbound(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "dual")
	port := freePort()
	d.serve("web", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:81", port+1),
		"-p", fmt.Sprintf("%d:82", port+2),
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
			d.once("tcp_bypass_inbound", func() {
				if out := test.client("tcpdial", net.JoinHostPort(test.target, fmt.Sprint(port))); !sourceIs(out,
					test.source) {
					t.Errorf("the service sees %q, want %s", out, test.source)
				}
			})
		})
	}
	t.Run("half-close and digest", func(t *testing.T) {
		d := d.in(t)
		if r := d.command(helper, "tcpsend", fmt.Sprintf("127.0.0.1:%d", port+1), "30000000"); !strings.Contains(
			r.stdout, "same 30000000") {
			t.Errorf("%v", r)
		}
		if out := there("tcpsend", fmt.Sprintf("%s:%d", host4, port+1), "30000000"); !strings.Contains(out,
			"same 30000000") {
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
		held := d.pastTheGateway(func() *held {
			return d.talkTo("in", helper, "tcphold",
				fmt.Sprintf("127.0.0.1:%d", port+2), "stdin")
		})
		held.echoes("1234")
		eventually(t, func() error {
			if out := d.ok("flows"); !regexp.MustCompile(`web +tcp +in .* bypass +5B +5B`).MatchString(out) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		held.in.Close()
	})
	t.Run("it ends with its container", func(t *testing.T) {
		d := d.in(t)
		d.pastTheGateway(func() *held {
			return d.talkTo("in", helper, "tcphold", fmt.Sprintf("127.0.0.1:%d", port+2),
				"stdin")
		})
		d.ok("rm", "-f", "web") // ends its connections
		eventually(t, func() error {
			if out := d.ok("flows"); strings.Contains(out, "tcp") {
				return fmt.Errorf("a flow outlives its container: %s", out)
			}
			return nil
		})
	})
	t.Run("not where it was switched off", func(t *testing.T) {
		d := d.in(t)
		d.ok("network", "create", "-o", "usernet.bypass_inbound=false", "nobypass")
		d.serve("web2", []string{"--network", "nobypass", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80",
			"addr")
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
