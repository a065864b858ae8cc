package overlay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A socketFlow is a line of `usernet flows`, as far as this test looks at it.
type socketFlow struct {
	Container, Network, Direction, Path, State string
	Inside, Outside                            netip.AddrPort
}

// socketFlows are a container's connections that go from socket to socket.
func (h *host) socketFlows(container string) (list []socketFlow) {
	h.t.Helper()
	var all []socketFlow
	out := h.ok("flows", "--json", container)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		h.t.Fatalf("flows: %v: %s", err, out)
	}
	for _, f := range all {
		if f.Path == "sockets" {
			list = append(list, f)
		}
	}
	return list
}

// holds starts a container that keeps a connection from socket to socket, which both hosts list with both true
// addresses. Before it, the container makes some that need not go so: the first may come before there are sockets.
// Where the kept one goes by frames as well, since the other host was not reached within a second, another is made.
func (h *host) holds(name, network, to string, port int, server string, there *host) {
	h.t.Helper()
	target := fmt.Sprintf("%s:%d", to, port)
	eventually(h.t, func() error {
		_ = h.try("rm", "-f", name)
		h.container(name, []string{"--network", network}, "sh", "-c", fmt.Sprintf(
			"for i in 1 2 3 4 5; do %[1]s tcpdial %[2]s; done; echo holding; exec %[1]s tcphold %[2]s", helper, target))
		h.logs(name, "holding\nok")
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // between two looks
			err := h.listed(name, target, server, there)
			if err == nil || time.Now().After(deadline) {
				return err
			}
		}
	})
}

// listed says whether both hosts list a container's connection to a server.
func (h *host) listed(name, target, server string, there *host) error {
	h.t.Helper()
	own := h.address(name, "eth0")
	out, in := h.socketFlows(name), there.socketFlows(server)
	if len(out) != 1 || out[0].Direction != "out" || out[0].State != "established" ||
		out[0].Inside.Addr() != own || out[0].Outside.String() != target {
		return fmt.Errorf("the host of %s lists %+v", name, out)
	}
	for _, f := range in {
		if f.Direction == "in" && f.Inside == out[0].Outside && f.Outside == out[0].Inside {
			return nil
		}
	}
	return fmt.Errorf("the host of %s lists %+v, not %+v", server, in, out)
}

// logs waits until a container has said something.
func (h *host) logs(name, words string) {
	h.t.Helper()
	eventually(h.t, func() error {
		if r := h.try("logs", name); !strings.Contains(r.stdout, words) {
			return fmt.Errorf("%s has not said %q: %v", name, words, r)
		}
		return nil
	})
}

// endsAfterHolding waits until what a container holds has ended, with a reset or not.
func (h *host) endsAfterHolding(name string) {
	h.t.Helper()
	eventually(h.t, func() error {
		r := h.try("logs", name)
		if _, held, _ := strings.Cut(r.stdout, "holding"); !strings.Contains(held, "E") { // EOF or ECONNRESET
			return fmt.Errorf("the connection of %s goes on: %v", name, r)
		}
		return nil
	})
}

// dials has a container connect to a server that tells its clients their addresses.
func (h *host) dials(name, target, want string) {
	h.t.Helper()
	eventually(h.t, func() error {
		if r := h.exec(name, helper, "tcpdial", target, "3s"); !strings.Contains(r.stdout, want) {
			return fmt.Errorf("want %q: %v", want, r)
		}
		return nil
	})
}

// TestTCPFromSocketToSocket has connections of containers on two hosts go from socket to socket, and everything that
// cannot go so by frames.
func TestTCPFromSocketToSocket(t *testing.T) {
	ofStores(t, func(t *testing.T, s store) {
		w := newWorld(t, s, 3)
		old := w.hosts[2] // a host that makes no such connections
		old.stop(syscall.SIGTERM)
		old.start(append(s.flags(w), "--no-bypass-inbound", "--no-bypass-outbound")...)
		for _, network := range []struct {
			name  string
			flags []string
		}{{"sealed", []string{"--subnet", "10.81.0.0/24"}},
			{"plain", []string{"--subnet", "10.82.0.0/24", "-o", "encrypted=false"}}} {
			w.fromSocketToSocket(t, network.name, network.flags)
		}
	}, "etcd")
}

func (w *world) fromSocketToSocket(t *testing.T, net string, flags []string) {
	a, b, old := w.hosts[0], w.hosts[1], w.hosts[2]
	id := a.ok(append(append([]string{"network", "create", "-d", "overlay", "-o", "usernet.tcp=sockets"}, flags...),
		net)...)
	b.seesNetwork(net, id)
	old.seesNetwork(net, id)
	server, client, third := "server-"+net, "client-"+net, "third-"+net
	serving := helper + " tcpserve :81 echo & " + helper + " tcpserve :82 digest & exec " + helper +
		" tcpserve :80 addr"
	b.serve(server, []string{"--network", net, "--label", "app=server"}, "sh", "-c", serving)
	old.serve(third, []string{"--network", net}, "sh", "-c", serving)
	a.idle(client, "--network", net)
	a.pings(client, server)
	a.pings(client, third)
	to, own := b.address(server, "eth0").String(), a.address(client, "eth0").String()
	a.dials(client, to+":80", own)
	hold := "hold-" + net
	a.holds(hold, net, to, 81, server, b)
	if r := a.exec(client, helper, "tcpsend", to+":82", "20000000"); r.code != 0 {
		t.Errorf("a stream, and an answer after its end: %v", r)
	}
	if r := a.exec(client, helper, "tcpmany", to+":81", "50"); r.code != 0 {
		t.Errorf("many at once: %v", r)
	}
	// Both ways: the server's host asks as well.
	a.container("back-"+net, []string{"--network", net}, helper, "tcpserve", ":80", "addr")
	a.logs("back-"+net, "listening")
	b.dials(server, a.address("back-"+net, "eth0").String()+":80", to)

	if r := a.exec(client, helper, "tcpdial", to+":9"); !strings.HasPrefix(r.stdout, "ECONNREFUSED") {
		t.Errorf("a closed port: %v", r)
	}
	// To and from a host that makes none, by frames.
	at := old.address(third, "eth0").String()
	a.dials(client, at+":80", own)
	old.dials(third, to+":80", at)
	if f := append(old.socketFlows(third), a.socketFlows(client)...); len(f) > 0 {
		t.Errorf("not by frames: %+v", f)
	}
	w.socketsEnd(t, net, to, server, client, hold)
}

// socketsEnd ends connections in each way that there is.
func (w *world) socketsEnd(t *testing.T, net, to, server, client, hold string) {
	a, b := w.hosts[0], w.hosts[1]
	again := func(name string) {
		t.Helper()
		a.ok("rm", "-f", hold)
		hold = name
		a.holds(hold, net, to, 81, server, b)
	}
	// A policy that forbids it.
	a.ok("network", "policy", net, "deny * -> app=server")
	a.logs(hold, "ECONNRESET")
	eventually(t, func() error {
		if r := a.exec(client, helper, "tcpdial", to+":80", "2s"); !strings.HasPrefix(r.stdout, "timeout") {
			return fmt.Errorf("the policy refuses it: %v", r)
		}
		return nil
	})
	a.ok("network", "policy", net, "--clear")
	a.dials(client, to+":80", "ok")
	// The other container's end, and this one's.
	again("hold2-" + net)
	b.ok("kill", server)
	a.endsAfterHolding(hold)
	b.ok("rm", "-f", server)
	b.serve(server, []string{"--network", net, "--ip", to, "--label", "app=server"}, "sh", "-c",
		helper+" tcpserve :81 echo & exec "+helper+" tcpserve :80 addr")
	a.dials(client, to+":80", "ok")
	// The other host's daemon is killed.
	again("hold3-" + net)
	b.stop(syscall.SIGKILL)
	a.logs(hold, "ECONNRESET")
	b.again()
	a.dials(client, to+":80", "ok")
	again("hold4-" + net)
	a.ok("rm", "-f", "hold4-"+net)
	eventually(t, func() error {
		if f := b.socketFlows(server); len(f) > 0 {
			return fmt.Errorf("they have ended with the container: %+v", f)
		}
		return nil
	})
}
