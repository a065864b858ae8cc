package overlay

import (
	"fmt"
	"strings"
	"testing"
)

// TestTraceToAnotherHost has trace say which host a container is on and how frames go there, and get there.
func TestTraceToAnotherHost(t *testing.T) {
	w := newWorld(t, store{"gossip", (*world).gossipFlags, nil}, 2)
	a, b := w.hosts[0], w.hosts[1]
	for network, carried := range map[string]string{"sealed": ", sealed between the hosts, straight to ",
		"plain": ", readable on the way, straight to "} {
		flags := []string{"network", "create", "-d", "overlay", network}
		if network == "plain" {
			flags = append(flags, "-o", "encrypted=false")
		}
		id := a.ok(flags...)
		w.each(func(h *host) { h.seesNetwork(network, id) })
		a.idle("a-"+network, "--network", network)
		b.serve("b-"+network, []string{"--network", network}, helper, "tcpserve", ":80", "addr")
		a.pings("a-"+network, "b-"+network)
		a.goesBy("direct", b)
		for _, test := range []struct {
			args []string
			want []string
			code int
		}{
			{[]string{"a-" + network, "b-" + network + ":80"},
				[]string{carried + b.addr(), "reached: connected", "yes:"}, 0},
			{[]string{"a-" + network, "b-" + network + ":81"}, []string{"refused", "nothing listens"}, 2},
			{[]string{"a-" + network, "b-" + network}, []string{"hands the frame to its container b-" + network}, 0},
			{[]string{"--dry-run", "a-" + network, "b-" + network}, []string{"VXLAN (VNI ", carried}, 0},
		} {
			r := a.try(append([]string{"trace", "--timeout", "20s"}, test.args...)...)
			for _, want := range test.want {
				if r.code != test.code || !strings.Contains(r.stdout, want) || strings.Contains(r.stdout, "VNI 0") {
					t.Errorf("%v: status %d, want %d and %q:\n%s%s", test.args, r.code, test.code, want, r.stdout,
						r.stderr)
				}
			}
		}
	}
}

// TestTraceFromSocketToSocket has trace say that connections go so where a network is made so, or why they do not.
func TestTraceFromSocketToSocket(t *testing.T) {
	w := newWorld(t, store{"gossip", (*world).gossipFlags, nil}, 2)
	a, b := w.hosts[0], w.hosts[1]
	for _, test := range []struct{ network, flag, want string }{
		{"sealed", "encrypted=true", "from socket to socket: one connection between the hosts (TLS 1.3)"},
		{"plain", "encrypted=false", "from socket to socket: one connection between the hosts (TCP, readable on the way)"},
		{"off", "usernet.bypass_outbound=false", "in frames, not from socket to socket: the bypass is switched off"},
	} {
		id := a.ok("network", "create", "-d", "overlay", "-o", "usernet.tcp=sockets", "-o", test.flag, test.network)
		w.each(func(h *host) { h.seesNetwork(test.network, id) })
		client, server := "a-"+test.network, "b-"+test.network
		a.idle(client, "--network", test.network)
		b.serve(server, []string{"--network", test.network}, helper, "tcpserve", ":80", "addr")
		a.pings(client, server)
		to := b.address(server, "eth0").String()
		for destination, want := range map[string]string{to + ":80": test.want, to: "VXLAN (VNI "} {
			eventually(t, func() error { // once the hosts have heard of each other
				out := a.ok("trace", "--timeout", "20s", client, destination)
				if !strings.Contains(out, want) || !strings.Contains(out, "yes: it got through") {
					return fmt.Errorf("trace %s %s: want %q:\n%s", client, destination, want, out)
				}
				return nil
			})
		}
	}
}
