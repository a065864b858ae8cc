package test

import (
	"slices"
	"strings"
	"testing"
)

// TestCongestionControl: what a container's TCP sends stays on the machine, and is not paced. That it is as the machine
// has it where it leaves, the tests of VXLAN have.
func TestCongestionControl(t *testing.T) {
	t.Parallel()
	const file = "/proc/sys/net/ipv4/tcp_congestion_control"
	want := strings.TrimSpace(readFile(t, file))
	if !slices.Contains([]string{"reno", "cubic"}, want) {
		want = "reno"
	}
	d := startDaemon(t)
	d.ok("network", "create", "other")
	d.ok("run", "-d", "--name", "c1", "--", "sleep", "1000000")
	for _, network := range []string{"bridge", "other"} {
		if network == "other" {
			d.ok("network", "connect", "other", "c1")
		}
		if got := strings.TrimSpace(d.ok("exec", "c1", "cat", file)); got != want {
			t.Errorf("on %s a container has %q, want %q", network, got, want)
		}
	}
}
