package overlay

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a router does with the port of a datagram that leaves: a cone NAT keeps it for all destinations, so that others
// can be told of it; a symmetric one draws another for each.
const (
	coneNAT      = "masquerade"
	symmetricNAT = "masquerade fully-random"
)

// behindNAT puts a router between a host and the Ethernet, for the length of a test: what comes from outside gets in as
// an answer alone. Both hosts of a test have the same address behind theirs.
func (h *host) behindNAT(kind string) {
	h.t.Helper()
	router, n := fmt.Sprintf("xh-r%d", h.n), fmt.Sprint(h.n)
	ip := func(args ...string) { h.t.Helper(); rootIn(h.t, h.ns(), append([]string{"ip"}, args...)...) }
	ip("netns", "add", router)
	rip := func(args ...string) { h.t.Helper(); ip(append([]string{"-n", router}, args...)...) }
	ip("link", "set", "eth0", "netns", router)
	h.t.Cleanup(func() {
		ip("link", "del", "eth0")
		rip("link", "set", "eth0", "netns", "xh-h"+n)
		ip("netns", "del", router)
		ip("addr", "add", h.addr()+"/24", "dev", "eth0")
		ip("addr", "add", "2001:db8::"+n+"/64", "dev", "eth0", "nodad")
		ip("link", "set", "eth0", "up")
		ip("route", "add", "default", "via", "192.0.2.254")
	})
	ip("link", "add", "eth0", "type", "veth", "peer", "name", "in", "netns", router)
	ip("addr", "add", "192.168.1.2/24", "dev", "eth0")
	ip("link", "set", "eth0", "up")
	ip("route", "add", "default", "via", "192.168.1.1")
	rip("link", "set", "lo", "up")
	rip("addr", "add", "192.168.1.1/24", "dev", "in")
	rip("link", "set", "in", "up")
	rip("addr", "add", h.addr()+"/24", "dev", "eth0")
	rip("link", "set", "eth0", "up")
	rip("route", "add", "default", "via", "192.0.2.254")
	rootIn(h.t, "/run/netns/"+router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	rootIn(h.t, "/run/netns/"+router, "nft", fmt.Sprintf(`table ip t {
		chain post { type nat hook postrouting priority 100; oifname "eth0" %s; }
		chain input { type filter hook input priority 0; iifname "eth0" ct state new drop; }
		chain forward { type filter hook forward priority 0; iifname "eth0" ct state new drop; }
	}`, kind))
}

// pathTo is how a host reaches another one, by its id.
func (h *host) pathTo(id string) string {
	h.t.Helper()
	for _, o := range h.cluster().Hosts {
		if o.ID == id && o.Answers {
			return o.Path
		}
	}
	return ""
}

// reachesBy waits until a host reaches another one by a path.
func (h *host) reachesBy(path, id string) {
	h.t.Helper()
	eventually(h.t, func() error {
		if p := h.pathTo(id); p != path {
			return fmt.Errorf("host %d goes to %s by %q, not %q: %s", h.n, id, p, path, h.try("cluster", "ls"))
		}
		return nil
	})
}

// relayOf is the host that passes on what a host sends to another one, by its id; "": none does.
func (h *host) relayOf(id string) string {
	h.t.Helper()
	for _, o := range h.cluster().Hosts {
		if o.ID == id && o.Answers && o.Path == "relayed" {
			return o.Via
		}
	}
	return ""
}

// nameOf is the name of a host of the cluster, by what its id begins with; "": of none.
func (h *host) nameOf(id string) string {
	h.t.Helper()
	for _, o := range h.cluster().Hosts {
		if id != "" && strings.HasPrefix(o.ID, id) {
			return o.Name
		}
	}
	return ""
}

// traces has trace say that frames from one container to another take a path, and that they get there.
func (h *host) traces(from, to, path string) {
	h.t.Helper()
	out := h.ok("trace", "--timeout", "20s", from, to)
	for _, want := range []string{"sealed between the hosts", path, "agrees      yes: it got through"} {
		if !strings.Contains(out, want) {
			h.t.Errorf("trace does not say %q:\n%s", want, out)
		}
	}
}

// endsRelay kills the host that passes on what two hosts say to each other, which then go on through another one, and
// once more when the first one has come back and the second has ended.
func (w *world) endsRelay(a, b *host, ids [2]string) {
	w.t.Helper()
	for range 2 {
		var relay *host
		eventually(w.t, func() error {
			by, back := a.relayOf(ids[1]), b.relayOf(ids[0])
			for _, h := range w.hosts[2:] {
				if by != "" && by == back && strings.HasPrefix(h.cluster().Host, by) {
					relay = h
					return nil
				}
			}
			return fmt.Errorf("one end is relayed by %q, the other by %q: %s", by, back, a.try("cluster", "ls"))
		})
		w.t.Logf("host %d relays", relay.n)
		relay.stop(syscall.SIGKILL)
		killed := time.Now()
		within(w.t, relayFor, func() error { return a.ping("t1", "t2") })
		within(w.t, relayFor, func() error { return b.ping("t2", "t1") })
		w.t.Logf("the pair was apart for %v", time.Since(killed).Round(time.Millisecond))
		relay.again()
	}
}

// relayFor is how long a pair whose relay has ended may be apart: docs/overlay.md says 10 to 20 s, and the machine may
// be busy.
const relayFor = 45 * time.Second

// TestMeshOverNATs: two hosts behind NATs with one seed in the open, and another host that the seed has introduced.
// They reach each other by a way that was punched, or through a third one; and go on when the seed or the relay has
// ended, and those with a punched way also behind another address, and after a restart.
func TestMeshOverNATs(t *testing.T) {
	for name, nat := range map[string]string{"cone": coneNAT, "symmetric": symmetricNAT} {
		t.Run(name, func(t *testing.T) {
			w := newStore(t, store{name: "gossip"})
			key := w.gossipFlags()[2:]
			for n := range 4 {
				w.hosts = append(w.hosts, newHost(t, n+1))
			}
			a, b, seed, other := w.hosts[0], w.hosts[1], w.hosts[2], w.hosts[3]
			a.behindNAT(nat)
			b.behindNAT(nat)
			flags := append([]string{"--cluster-join", seed.addr()}, key...)
			for _, h := range []*host{seed, a, b, other} {
				h.start(flags...)
			}
			id := a.ok("network", "create", "-d", "overlay", "ov")
			w.each(func(h *host) { h.seesNetwork("ov", id) })
			for _, h := range []*host{a, b, other} {
				h.idle(fmt.Sprintf("t%d", h.n), "--network", "ov")
			}
			path, ids := "punched", [2]string{a.cluster().Host, b.cluster().Host}
			if nat == symmetricNAT {
				path = "relayed"
			}
			all := func() {
				t.Helper()
				a.pings("t1", "t2")
				b.pings("t2", "t1")
				other.pings("t4", "t1")
				other.pings("t4", "t2")
				a.reachesBy(path, ids[1])
				b.reachesBy(path, ids[0])
			}
			all()
			if ls := a.ok("cluster", "ls"); !strings.Contains(ls, path) {
				t.Errorf("cluster ls does not show %s:\n%s", path, ls)
			}
			a.traces("t1", "t2", map[string]string{
				"punched": "through the hosts' NATs",
				"relayed": "relayed by host " + a.nameOf(a.relayOf(ids[1])),
			}[path])

			if nat == symmetricNAT {
				w.endsRelay(a, b, ids)
				return
			}

			seed.stop(syscall.SIGKILL)
			all()
			a.idle("late", "--network", "ov")
			b.pings("t2", "late")

			// The router gets another address from its provider, and its mappings are gone.
			rootIn(t, "/run/netns/xh-r2", "ip", "addr", "del", b.addr()+"/24", "dev", "eth0")
			rootIn(t, "/run/netns/xh-r2", "ip", "addr", "add", "192.0.2.22/24", "dev", "eth0")
			rootIn(t, "/run/netns/xh-r2", "ip", "route", "add", "default", "via", "192.0.2.254")
			all()

			// A host that comes back finds the others by what it has on disk.
			b.stop(syscall.SIGTERM)
			b.again()
			b.idle("again", "--network", "ov")
			a.pings("t1", "again")
			all()
			other.sees(map[*host]string{seed: "down"})
		})
	}
}
