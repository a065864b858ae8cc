package test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestErrorsLeadOnward has commands fail in many ways: each says by its last line where to read on, and the program has
// that section.
func TestErrorsLeadOnward(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d.idle("web")
	d.ok("network", "create", "mynet")
	for _, test := range []struct {
		args  []string
		topic string
	}{
		{[]string{"inspect", "nobody"}, "something-is-not-there"},
		{[]string{"network", "rm", "nothing"}, "something-is-not-there"},
		{[]string{"network", "create", "mynet"}, "something-is-in-the-way"},
		{[]string{"network", "rm", "bridge"}, "something-is-not-allowed"},
		{[]string{"network", "create", "--subnet", "10.0.0.1/33", "bad"}, "a-command-line-is-wrong"},
		{[]string{"network", "create", "-o", "usernet.egress=maybe", "bad"}, "a-request-is-wrong"},
		{[]string{"network", "create", "-d", "overlay", "wide"}, "the-cluster-is-not-reached"},
		{[]string{"run", "--rm", "-p", fmt.Sprintf("%d:80", port), "--", "true"}, "port-is-already-allocated"},
		{[]string{"run", "--rm", "-p", "192.0.2.77:80:80", "--", "true"}, "a-port-"},
		{[]string{"run", "--rm", "--", "/nonexistent"}, "a-command-cannot-be-run"},
		{[]string{"exec", "web", "/nonexistent"}, "a-command-cannot-be-run"},
		{[]string{"trace", "web", "a b"}, "a-request-is-wrong"},
		{[]string{"run", "--rm", "--user", "nobody", "--", "true"}, "a-command-line-is-wrong"},
		{[]string{"exec", "--user", "nobody", "web", "true"}, "a-command-line-is-wrong"},
		{[]string{"stats", "--all", "web"}, "a-command-line-is-wrong"},
		{[]string{"cluster", "ls"}, "the-cluster-is-not-reached"},
		{[]string{"config", "check", "/nonexistent"}, "the-configuration-is-wrong"},
		{[]string{"serve", "--config", "/nonexistent"}, "the-configuration-is-wrong"},
		{[]string{"serve", "--host", "unix://" + d.dir + "/other"}, "a-command-line-is-wrong"},
		{[]string{"explain", "nothing"}, "a-command-line-is-wrong"},
		{[]string{"nothing"}, "a-command-line-is-wrong"},
		{[]string{"serve", "--socket", d.dir + "/other", "--state-dir", d.dir + "/state"},
			"another-daemon-uses-the-state"},
		{[]string{"--host", "unix://" + d.dir + "/nothing", "ps"}, "no-daemon-answers"},
	} {
		r := d.try(test.args...)
		lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
		topic, ok := strings.CutPrefix(lines[len(lines)-1], "See: usernet explain ")
		if r.code == 0 || !ok || !strings.HasPrefix(topic, test.topic) {
			t.Errorf("%v: want the topic %s: %v", test.args, test.topic, r)
			continue
		}
		if out := d.ok("explain", topic); !strings.Contains(out, "What to do.") ||
			!strings.Contains(out, "docs/troubleshooting.md#"+topic) {
			t.Errorf("explain %s:\n%s", topic, out)
		} else if strings.Contains(out, "](") {
			t.Errorf("a link of Markdown on a terminal:\n%s", out)
		}
	}
	if out := d.ok("explain", "containers-cannot-be-limited"); !strings.Contains(out, "Limits (docs/run.md#limits)") {
		t.Errorf("the link to another page:\n%s", out)
	}
	if out := d.ok("explain"); strings.Count(out, "\n") < 30 {
		t.Errorf("the list:\n%s", out)
	}
}
