package test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestPublishedPort(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "dual")
	port := freePort()
	publish := fmt.Sprintf("%d:80", port)
	d.serve("web", []string{"--network", "dual", "-p", publish, "-p", publish + "/udp"},
		"sh", "-c", helper+" udpserve :80 addr & exec "+helper+" tcpserve :80 addr")

	// at runs the helper at the client's machine.
	here := func(args ...string) string { return d.command(helper, args...).stdout }
	there := func(args ...string) string { return atPeer(t, helper+" "+strings.Join(args, " ")) }
	gateway := d.gateway("web")
	for _, test := range []struct {
		name   string
		client func(...string) string
		target string
		source string // as the service sees it
	}{
		{"another machine", there, host4, peer4},
		{"another machine, IPv6", there, host6, peer6},
		{"the host's loopback appears as the gateway", here, "127.0.0.1", gateway},
		{"the host's own address appears as the gateway", here, host4, gateway},
	} {
		target := net.JoinHostPort(test.target, fmt.Sprint(port))
		t.Run("TCP from "+test.name, func(t *testing.T) {
			if out := test.client("tcpdial", target); !sourceIs(out, test.source) {
				t.Errorf("the service sees %q, want %s", out, test.source)
			}
		})
		t.Run("UDP from "+test.name, func(t *testing.T) {
			eventually(t, func() error { // udpserve starts in the background
				if out := test.client("udpdial", target); !sourceIs(out, test.source) {
					return fmt.Errorf("the service sees %q, want %s", out, test.source)
				}
				return nil
			})
		})
	}
	t.Run("IPv6 loopback", func(t *testing.T) {
		if out := here("tcpdial", fmt.Sprintf("[::1]:%d", port)); !strings.HasPrefix(out, "ok") || len(strings.Fields(
			out)) < 3 {
			t.Errorf("no answer over ::1: %q", out)
		}
	})
	t.Run("ps shows it", func(t *testing.T) {
		d := d.in(t)
		out := d.ok("ps")
		for _, want := range []string{fmt.Sprintf("0.0.0.0:%d->80/tcp", port), fmt.Sprintf("[::]:%d->80/udp", port)} {
			if !strings.Contains(out, want) {
				t.Errorf("ps lacks %s: %s", want, out)
			}
		}
		if out := d.ok("port", "web"); !strings.Contains(out, fmt.Sprintf("80/tcp -> 0.0.0.0:%d", port)) {
			t.Errorf("port prints %s", out)
		}
	})
	t.Run("it ends with the container", func(t *testing.T) {
		d := d.in(t)
		d.ok("rm", "-f", "web")
		if out := here("tcpdial", fmt.Sprintf("127.0.0.1:%d", port)); !strings.HasPrefix(out, "ECONNREFUSED") {
			t.Errorf("the port still answers: %s", out)
		}
	})
}

// sourceIs reports whether a line of the helper's output is an address and port with that address.
func sourceIs(out, address string) bool {
	for _, line := range strings.Split(out, "\n") {
		if host, _, err := net.SplitHostPort(line); err == nil && host == address {
			return true
		}
	}
	return false
}

func TestPublishedPortThatIsTaken(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	publish := fmt.Sprintf("%d:80", port)
	d.serve("first", []string{"-p", publish}, helper, "tcpserve", ":80", "addr")
	d.fails("port is already allocated", "run", "-d", "--name", "second", "-p", publish, "--", "busybox", "sleep",
		"100")
	if names := d.names("ps"); !slices.Equal(names, []string{"first"}) {
		t.Errorf("running after the failure: %v", names)
	}
	if out := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)).stdout; !strings.HasPrefix(out, "ok") {
		t.Errorf("the first container's port stopped working: %s", out)
	}
	d.idle("third")
	if got := d.address("third"); got != "172.17.0.3" {
		t.Errorf("the failed container kept an address: the next one got %s", got)
	}

	foreign := freePort()
	listen(t, fmt.Sprintf("127.0.0.1:%d", foreign), echo)
	d.fails("port is already allocated", "run", "-d", "-p", fmt.Sprintf("127.0.0.1:%d:80", foreign), "--", "true")
	// All or nothing: the second of a range is taken, so the first must not stay bound.
	d.fails("port is already allocated", "run", "-d", "-p", fmt.Sprintf("127.0.0.1:%d-%d:80-81", foreign-1, foreign),
		"--", "true")
	if out := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", foreign-1)).stdout; !strings.HasPrefix(out,
		"ECONNREFUSED") {
		t.Errorf("a part of the failed range is bound: %s", out)
	}
}

func TestPublishedPortGrammar(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	for i, test := range []struct{ publish, target string }{
		{fmt.Sprintf("127.0.0.1:%d:80", port), fmt.Sprintf("127.0.0.1:%d", port)},
		{fmt.Sprintf("[::1]:%d:80", port), fmt.Sprintf("[::1]:%d", port)},
		{fmt.Sprintf("%d-%d:79-80", port+1, port+2), fmt.Sprintf("127.0.0.1:%d", port+2)},
		{"80", ""},
		{"127.0.0.1::80", ""},
	} {
		t.Run(test.publish, func(t *testing.T) {
			d := d.in(t)
			name := fmt.Sprint("box", i)
			d.serve(name, []string{"-p", test.publish}, helper, "tcpserve", ":80", "addr")
			if test.target == "" { // the port was chosen
				_, target, _ := strings.Cut(strings.Fields(d.ok("port", name))[2], ":")
				test.target = "127.0.0.1:" + target
			}
			if out := d.command(helper, "tcpdial", test.target).stdout; !strings.HasPrefix(out, "ok") || len(
				strings.Fields(out)) < 3 {
				t.Errorf("%s does not answer: %q", test.target, out)
			}
		})
	}
	for _, bad := range []string{"x", "80:x", "1-2:1-3", "1.2.3:80:80", "99999:80"} {
		if r := d.try("run", "-d", "-p", bad, "--", "true"); r.code == 0 || r.stderr == "" {
			t.Errorf("-p %s is accepted: %v", bad, r)
		}
	}
	d.fails("net.ipv4.ip_unprivileged_port_start", "run", "-d", "-p", "40:80", "--", "true")
}

func TestClosedContainerPortIsRefused(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.idle("box", "-p", fmt.Sprintf("%d:80", port))
	if r := d.command("curl", "-sS", "--max-time", "10", fmt.Sprintf("http://127.0.0.1:%d/", port)); r.code == 0 ||
		r.code == 28 {
		t.Errorf("curl ended with %v", r)
	}
	if out := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)).stdout; !strings.Contains(out,
		"ECONNRE") {
		t.Errorf("the client sees %q, not a refusal", out)
	}
}

func TestPublishedPortFromContainers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	d.idle("sibling", "--network", "mynet")
	gateway := d.gateway("web")
	for _, client := range []string{"web", "sibling"} {
		for _, address := range []string{host4, gateway} {
			out := d.ok("exec", client, helper, "tcpdial", fmt.Sprintf("%s:%d", address, port))
			if !strings.HasPrefix(out, "ok") || len(strings.Fields(out)) < 3 {
				t.Errorf("%s does not reach the port through %s: %q", client, address, out)
			}
		}
	}
}
