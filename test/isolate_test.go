package test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faultyDaemon starts a daemon in which faults can be injected: rules are POINT=TEXT=panic or POINT=TEXT=hang (package
// internal/faults). Two networks, red and blue, have a container each that is not to notice: red-b and blue-a.
func faultyDaemon(t *testing.T, rules ...string) *daemon {
	t.Helper()
	d := newDaemon(t)
	d.faulty = true
	d.prefix = []string{"USERNET_FAULTS=" + strings.Join(rules, ",")}
	d.start()
	for _, c := range []string{"red-a", "red-b", "blue-a"} {
		network, _, _ := strings.Cut(c, "-")
		if d.try("network", "inspect", network).code != 0 {
			d.ok("network", "create", network)
		}
		d.idle(c, "--network", network)
	}
	return d
}

// asks has a container send a text to a server that sends it back, and returns what came back. What is called bad is
// not waited for as long.
func (d *daemon) asks(container, network, target, text string) string {
	d.t.Helper()
	timeout := patience
	if strings.HasPrefix(text, "BAD") {
		timeout = 2 * time.Second
	}
	return d.exec(container, helper, "ask", network, target, text, timeout.String()).stdout
}

// TestPanicEndsWhatItHappenedInOnly injects a panic at each place that handles what a container or the outside sends.
func TestPanicEndsWhatItHappenedInOnly(t *testing.T) {
	t.Parallel()
	port := freePort()
	refused := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	d := faultyDaemon(t, "frame=BAD-FRAME=panic", "gateway=BAD-GATEWAY=panic", "reply=BAD-REPLY=panic",
		"relay=BAD-RELAY=panic",
		"copy=BAD-COPY=panic", "syn="+refused+"=panic", "query=bad-query=panic", "forward=bad-forward=panic")
	d.ok("network", "create", "-o", "usernet.bypass_outbound=false", "slow")
	d.idle("slow-a", "--network", "slow")
	target := net.JoinHostPort(host4, fmt.Sprint(port))
	listen(t, target, echo)
	listenUDP(t, target)

	asks := func(container, proto, text string) string { return d.asks(container, proto, target, text) }
	works := func(t *testing.T, containers ...string) {
		t.Helper()
		for _, c := range containers {
			for _, proto := range []string{"udp", "tcp"} {
				if out := asks(c, proto, "a-good-text"); !strings.Contains(out, "a-good-text") {
					t.Errorf("%s from %s was answered with %q", proto, c, out)
				}
			}
			d.looksUp(t, c, "www.example.test", host4)
		}
	}
	works(t, "red-a", "red-b", "blue-a", "slow-a")
	for i, test := range []struct {
		name string
		do   func() (answered bool)
	}{
		{"a socket handler has a datagram",
			func() bool { return strings.Contains(asks("red-a", "udp", "BAD-REPLY"), "BAD") }},
		{"a socket handler has a connection's bytes",
			func() bool { return strings.Contains(asks("red-a", "tcp", "BAD-RELAY"), "BAD") }},
		{"a goroutine has a connection's bytes",
			func() bool { return strings.Contains(asks("slow-a", "tcp", "BAD-COPY"), "BAD") }},
		{"a connection is decided about", func() bool {
			return strings.HasPrefix(d.exec("red-a", helper, "tcpdial", refused, "5s").stdout, "ok")
		}},
		{"a name is looked up", func() bool {
			return strings.Contains(d.exec("red-a", "dig", "+short", "+tries=1", "+time=2",
				"bad-query.example.test").stdout, host4)
		}},
		{"a name is asked for outside", func() bool {
			r := d.exec("red-a", "dig", "+tries=1", "+time=5", "bad-forward.example.test")
			return !strings.Contains(r.stdout, "SERVFAIL")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.do() {
				t.Error("there was an answer in spite of the panic")
			}
			works(t, "red-a", "red-b", "blue-a", "slow-a")
			if n := d.counter("panics"); n != i+1 {
				t.Errorf("%d panics are counted, want %d", n, i+1)
			}
		})
	}
	t.Run("a frame is handled", func(t *testing.T) {
		for i, c := range []string{"slow-a", "red-a"} {
			text := []string{"BAD-GATEWAY", "BAD-FRAME"}[i]
			if out := asks(c, "udp", text); out != "" {
				t.Errorf("there was an answer in spite of the panic: %s", out)
			}
			if out := asks(c, "udp", "BAD-AS-ALL-FROM-HERE"); out != "" {
				t.Errorf("%s still has its port: %q", c, out)
			}
			works(t, "red-b", "blue-a")
		}
		d.ok("network", "disconnect", "red", "red-a")
		d.ok("network", "connect", "red", "red-a")
		works(t, "red-a")
	})
	text := d.logText()
	for _, want := range []string{"level=ERROR", "injected at frame", "container=red-a", "network=red", "stack="} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the log:\n%s", want, text)
		}
	}
	if strings.Contains(text, "answering a request") {
		t.Errorf("a request failed:\n%s", text)
	}
}

// TestHangStaysInItsNetwork hangs what serves one network, at each place in turn.
func TestHangStaysInItsNetwork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ point, victim string }{
		{"frame", "red-a"},   // a container's own port
		{"gateway", "red-a"}, // the same, further on
		{"reply", ""},        // what handles the network's sockets
		{"locked", ""},       // the network's forwarder holds its lock
	} {
		t.Run(test.point, func(t *testing.T) {
			d := faultyDaemon(t, test.point+"=BAD-TEXT=hang")
			defer func() { // so that the daemon can end
				if err := d.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
					t.Error(err)
				}
			}()
			port := freePort()
			target := net.JoinHostPort(host4, fmt.Sprint(port))
			listen(t, target, echo)
			listenUDP(t, target)
			published := freePort()
			d.serve("blue-web", []string{"--network", "blue", "-p", fmt.Sprintf("%d:80", published)}, helper,
				"tcpserve", ":80", "addr")
			asks := func(container, proto, text string) string { return d.asks(container, proto, target, text) }
			if out := asks("red-a", "udp", "BAD-TEXT"); out != "" {
				t.Fatalf("nothing hangs: %q", out)
			}
			began := time.Now()
			for _, proto := range []string{"udp", "tcp"} {
				if out := asks("blue-a", proto, "a-good-text"); !strings.Contains(out, "a-good-text") {
					t.Errorf("%s on another network was answered with %q", proto, out)
				}
			}
			if test.victim != "" { // its neighbours go on as well
				for _, proto := range []string{"udp", "tcp"} {
					if out := asks("red-b", proto, "a-good-text"); !strings.Contains(out, "a-good-text") {
						t.Errorf("%s from a neighbour was answered with %q", proto, out)
					}
				}
			}
			d.looksUp(t, "blue-a", "www.example.test", host4)
			d.says("ok", "blue-a", helper, "tcpdial", "blue-web:80")
			if r := d.command(helper, "tcpdial", net.JoinHostPort(host4, fmt.Sprint(published))); !strings.HasPrefix(
				r.stdout, "ok") {
				t.Errorf("a published port on another network: %v", r)
			}
			d.idle("blue-new", "--network", "blue")
			d.ok("rm", "-f", "blue-new")
			d.ok("ps", "-a")
			d.ok("info")
			t.Logf("what is not hung was served in %s", time.Since(began).Round(time.Millisecond))
		})
	}
}
