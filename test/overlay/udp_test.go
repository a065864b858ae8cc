package overlay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// blockUDP drops all UDP between two hosts, until it is called back.
func blockUDP(t testing.TB, a, b *host) (unblock func()) {
	t.Helper()
	rootIn(t, a.ns(), "nft", fmt.Sprintf(`table ip noudp {
		chain in { type filter hook input priority 0; ip saddr %s meta l4proto udp drop; }
		chain out { type filter hook output priority 0; ip daddr %s meta l4proto udp drop; }
	}`, b.addr(), b.addr()))
	blocked := true
	unblock = func() {
		t.Helper()
		if blocked {
			rootIn(t, a.ns(), "nft", "delete table ip noudp")
			blocked = false
		}
	}
	t.Cleanup(unblock)
	return unblock
}

// goesBy waits until a host's frames go to another one by a path.
func (h *host) goesBy(path string, to *host) {
	h.t.Helper()
	eventually(h.t, func() error {
		for _, o := range h.cluster().Hosts {
			if o.Path == path && o.Answers &&
				slices.ContainsFunc(o.Addrs, func(a string) bool { return strings.HasPrefix(a, to.addr()+":") }) {
				return nil
			}
		}
		return fmt.Errorf("host %d does not go to host %d by %s: %+v", h.n, to.n, path, h.cluster().Hosts)
	})
}

// TestUDPBlocked drops all UDP between two hosts of three: everything between their containers goes by TCP, and by
// UDP again when that gets through.
func TestUDPBlocked(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
		sealed := a.ok("network", "create", "-d", "overlay", "sealed")
		plain := a.ok("network", "create", "-d", "overlay", "-o", "encrypted=false", "plain")
		w.each(func(h *host) { h.seesNetwork("sealed", sealed); h.seesNetwork("plain", plain) })
		for _, network := range []string{"sealed", "plain"} {
			a.idle("a-"+network, "--network", network)
			b.serve("b-"+network, []string{"--network", network}, "sh", "-c",
				helper+" udpserve :80 addr & exec "+helper+" tcpserve :80 addr")
			a.pings("a-"+network, "b-"+network)
		}
		c.idle("c-sealed", "--network", "sealed")
		all := func() {
			t.Helper()
			for _, network := range []string{"sealed", "plain"} {
				own, other := "a-"+network, "b-"+network
				a.pings(own, other)
				b.pings(other, own)
				want := a.address(own, "eth0").String()
				for _, dial := range []string{"tcpdial", "udpdial"} {
					eventually(t, func() error {
						if r := a.exec(own, helper, dial, other+":80"); !strings.Contains(r.stdout, want) {
							return fmt.Errorf("%s does not see %s: %v", other, want, r)
						}
						return nil
					})
				}
			}
			c.pings("c-sealed", "a-sealed")
			c.pings("c-sealed", "b-sealed")
		}
		all()
		unblock := blockUDP(t, a, b)
		a.goesBy("tcp", b)
		b.goesBy("tcp", a)
		all()
		a.goesBy("direct", c)
		b.idle("late", "--network", "sealed")
		a.pings("a-sealed", "late")
		unblock()
		a.goesBy("direct", b)
		b.goesBy("direct", a)
		all()
	}, "gossip") // whose hosts speak UDP to each other themselves
}
