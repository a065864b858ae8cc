package test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// traced is what usernet trace says.
type traced struct {
	Proto, Address, Agrees, Because string

	Steps             []struct{ Stage, Text, Remedy string }
	Predicted, Actual struct{ Kind, Text string }
	code              int
}

// trace runs usernet trace.
func (d *daemon) trace(args ...string) (t traced) {
	d.t.Helper()
	r := d.try(append([]string{"trace", "--json", "--timeout", "8s"}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &t); err != nil {
		d.t.Fatalf("trace %v: %v", args, r)
	}
	t.code = r.code
	return t
}

// says is all steps of a trace, in lines.
func (t traced) says() string {
	var b strings.Builder
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "%s: %s | %s\n", s.Stage, s.Text, s.Remedy)
	}
	return b.String() + fmt.Sprintf("predicted %s, actual %s (%s), agrees %s: %s", t.Predicted.Kind, t.Actual.Kind,
		t.Actual.Text, t.Agrees, t.Because)
}

// TestTrace compares what is predicted with what happens to a real attempt, for all kinds of destinations.
func TestTrace(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port, loop, published, dead := freePort(), freePort(), freePort(), freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, port), echo)
	listen(t, fmt.Sprintf("127.0.0.1:%d", loop), echo)
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
	startAtPeer(t, fmt.Sprintf("%s udpserve :%d", helper, port))
	for name, flags := range map[string][]string{
		"mynet": {"--ipv6"}, "other": nil, "inside": {"--internal"},
		"closed": {"--egress", "deny", "--allow-egress", fmt.Sprintf("www.example.test:%d", port)},
		"apart":  {"-o", "com.docker.network.bridge.enable_icc=false"},
	} {
		d.ok(append(append([]string{"network", "create"}, flags...), name)...)
	}
	d.serve("db", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:7", published), "-p",
		fmt.Sprintf("%d:9", dead)}, helper, "tcpserve", ":7", "echo")
	d.idle("web", "--network", "mynet")
	d.idle("far", "--network", "other")
	d.idle("shut", "--network", "inside")
	d.idle("build", "--network", "closed")
	d.idle("looped", "--host-loopback")
	d.idle("one", "--network", "apart")
	d.idle("two", "--network", "apart")
	d.idle("plain")

	at := func(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
	gateway := strings.TrimSpace(d.ok("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "mynet"))
	for _, test := range []struct {
		what      string
		args      []string
		predicted string
		actual    string
		code      int
		says      []string
	}{
		{"another machine", []string{"web", at(peer4, port)}, "passes", "reached", 0,
			[]string{"route: by eth0 to the gateway", "port guard", "from " + host4 + " to " + at(peer4, port),
				"the bypass"}},
		{"another machine by name", []string{"web", at("www.example.test", port)}, "passes", "reached", 0,
			[]string{"names: www.example.test is " + host4 + ", from ",
				"asked: www.example.test was answered by 127.0.0.11:53"}},
		{"a datagram", []string{"--udp", "web", at(peer4, port)}, "passes", "reached", 0, []string{"path: datagrams"}},
		{"a ping", []string{"web", peer4}, "passes", "reached", 0, []string{"gateway: it is outside"}},
		{"a ping of the gateway", []string{"web", gateway}, "passes", "reached", 0, []string{"answers pings itself"}},
		{"a port where nothing listens", []string{"web", at(peer4, 1)}, "passes", "refused", 2,
			[]string{"the host itself gets the same answer"}},
		{"a network without a way", []string{"web", "198.51.100.7:80"}, "passes", "unreachable", 4, nil},
		{"IPv6", []string{"web", at(peer6, port)}, "passes", "reached", 0, []string{"from " + host6}},
		{"IPv6 without any", []string{"far", at(peer6, port)}, "unreachable", "unreachable", 4,
			[]string{"no route", "--ipv6"}},
		{"a neighbour by name", []string{"web", "db:7"}, "passes", "reached", 0,
			[]string{"from the names of its networks", "interface of container db"}},
		{"a neighbour's closed port", []string{"web", "db:8"}, "passes", "refused", 2, nil},
		{"a ping of a neighbour", []string{"web", "db"}, "passes", "reached", 0, nil},
		{"nobody's address", []string{"web", strings.TrimSuffix(gateway, ".1") + ".250:80"}, "unreachable",
			"unreachable", 4,
			[]string{"nobody on network mynet"}},
		{"a name of another network", []string{"far", "db:7"}, "unresolved", "unresolved", 6,
			[]string{"usernet network connect mynet far"}},
		{"a container of another network", []string{"far", d.address("db") + ":7"}, "unreachable", "unreachable", 4,
			[]string{"another network"}},
		{"a published port at the gateway", []string{"far", at("host.docker.internal", published)}, "passes",
			"reached", 0,
			[]string{"published for port 7 of container db"}},
		{"a published port at the host", []string{"far", at(host4, published)}, "passes", "reached", 0,
			[]string{"published for port 7 of container db", "whether something listens"}},
		{"a published port at the own loopback", []string{"far", at("127.0.0.1", published)}, "passes", "refused", 2,
			[]string{fmt.Sprintf("| host.docker.internal:%d: the host has published port 7 of container db", published)}},
		{"the host's loopback", []string{"web", at(gateway, loop)}, "passes", "refused", 2,
			[]string{"not its loopback"}},
		{"the host's loopback, opened", []string{"looped", at("host.docker.internal", loop)}, "passes", "reached", 0,
			[]string{"--host-loopback"}},
		{"its own loopback", []string{"web", "127.0.0.1:80"}, "passes", "refused", 2,
			[]string{"stays in the container"}},
		{"metadata", []string{"web", "169.254.169.254:80"}, "prohibited", "refused", 3,
			[]string{"| --allow-egress 169.254.169.254:80"}},
		{"an internal network", []string{"shut", at(peer4, port)}, "unreachable", "unreachable", 4, nil},
		{"a policy", []string{"build", at(peer4, port)}, "prohibited", "refused", 3,
			[]string{"| --allow-egress " + at(peer4, port)}},
		{"a policy and a datagram", []string{"--udp", "build", at(peer4, port)}, "prohibited", "unreachable", 3, nil},
		{"a policy and a ping", []string{"build", peer4}, "prohibited", "unreachable", 3,
			[]string{"| --allow-egress " + peer4 + "\n"}},
		{"a name that a policy allows", []string{"build", at("www.example.test", port)}, "passes", "reached", 0,
			[]string{"allowed by --allow-egress www.example.test"}},
		{"a name that a policy does not allow", []string{"build", at("mail.example.test", port)}, "unresolved",
			"unresolved", 6,
			[]string{"--allow-egress mail.example.test"}},
		{"containers that are kept apart", []string{"one", d.address("two") + ":7"}, "unreachable", "unreachable", 4,
			[]string{"keeps its containers apart"}},
		{"the server of names", []string{"--udp", "plain", "127.0.0.11:53"}, "passes", "reached", 0, nil},
		{"only said", []string{"--dry-run", "web", "169.254.169.254:80"}, "prohibited", "", 3, nil},
	} {
		t.Run(test.what, func(t *testing.T) {
			got := d.in(t).trace(test.args...)
			if got.Predicted.Kind != test.predicted || got.Actual.Kind != test.actual || got.code != test.code {
				t.Errorf("trace %v: status %d\n%s", test.args, got.code, got.says())
			}
			if want := map[bool]string{true: "", false: "yes"}[test.actual == ""]; got.Agrees != want {
				t.Errorf("it agrees: %q\n%s", got.Agrees, got.says())
			}
			for _, text := range test.says {
				if !strings.Contains(got.says()+"\n", text) {
					t.Errorf("%q is not said:\n%s", text, got.says())
				}
			}
		})
	}
	t.Run("a published port where nothing listens", func(t *testing.T) {
		d := d.in(t)
		for _, from := range []string{"web", "far"} { // connected, or reset already
			got := d.trace(from, at(host4, dead))
			if got.Agrees != "yes" || !strings.Contains(got.Because, "on port 9 of container db") {
				t.Errorf("status %d\n%s", got.code, got.says())
			}
		}
	})
	t.Run("an address that swallows everything", func(t *testing.T) {
		d := d.in(t)
		if got := d.trace("--timeout", "1s", "web", "203.0.113.7:80"); got.Actual.Kind != "no-answer" || got.code != 5 {
			t.Errorf("status %d\n%s", got.code, got.says())
		}
	})
	t.Run("nothing is counted for what is only said", func(t *testing.T) {
		d := d.in(t)
		before := d.counter("egress_prohibited")
		d.trace("--dry-run", "build", at(peer4, port))
		if now := d.counter("egress_prohibited"); now != before {
			t.Errorf("%d refusals are counted", now-before)
		}
	})
	t.Run("a text and errors", func(t *testing.T) {
		d := d.in(t)
		r := d.try("trace", "build", at(peer4, port))
		for _, want := range []string{"remedy: --allow-egress " + at(peer4, port), "agrees",
			"yes: the refusal is the policy's"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%q is missing: %v", want, r)
			}
		}
		d.idle("onhost", "--network", "host")
		if got := d.trace("onhost", at(peer4, port)); got.Actual.Kind != "failed" || got.code != 7 {
			t.Errorf("in the host's network: status %d\n%s", got.code, got.says())
		}
		if got := d.trace("--dry-run", "onhost", at(peer4, port)); got.Predicted.Kind != "passes" || got.code != 0 {
			t.Errorf("in the host's network, only said: status %d\n%s", got.code, got.says())
		}
		d.fails("a datagram needs a port", "trace", "--udp", "web", peer4)
		d.fails("the port is not a number", "trace", "web", peer4+":http")
		d.fails("give ADDRESS, NAME", "trace", "web", "a b")
		d.fails("No such container", "trace", "nobody", peer4)
		d.fails("give ADDRESS, NAME", "trace", "web", "[::1")
		d.fails("give a duration", "trace", "--timeout", "1h", "web", peer4)
		d.fails("give a duration", "trace", "--timeout", "-1s", "web", peer4)
	})
}
