package test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// greedy has a container open as many connections as it gets, and keep them until the test ends. It returns how many.
func (d *daemon) greedy(name, address string, count int) int {
	d.t.Helper()
	h := d.startTalk(name, usernet, "exec", "-i", name, helper, "greedy", address, fmt.Sprint(count))
	got := 0
	if _, err := fmt.Sscanf(h.next(), "open %d", &got); err != nil {
		d.t.Fatal(err)
	}
	return got
}

// othersGoOn holds that API, exec, new containers, and a neighbour's traffic of each kind work.
func (d *daemon) othersGoOn(neighbour, published, target string) {
	d.t.Helper()
	d.ok("ps")
	d.ok("info")
	d.ok("exec", neighbour, "true")
	d.idle("newcomer", "--network", "mynet")
	d.says("same 10", "newcomer", helper, "udpdial", target, "10")
	d.ok("rm", "-f", "newcomer")
	for range 20 {
		for _, network := range []string{"tcp", "udp"} {
			if out := d.asks(neighbour, network, target, "a-good-text"); !strings.Contains(out, "a-good-text") {
				d.t.Errorf("%s of a neighbour: %q", network, out)
			}
		}
	}
	d.looksUp(d.t.(*testing.T), neighbour, "www.example.test", host4)
	for range 5 {
		if r := d.command(helper, "tcpdial", published); !strings.HasPrefix(r.stdout, "ok") {
			d.t.Errorf("a published port of a neighbour: %v", r)
		}
	}
}

// attackBudgetOfDescriptors has one container open all connections that it gets (a thousand took all) where the daemon
// may have 2048 descriptors. Each takes two, or one where it goes by the gateway.
func attackBudgetOfDescriptors(t *testing.T) {
	d := newDaemon(t)
	d.prefix = []string{"prlimit", "--nofile=2048:2048"}
	d.start()
	target := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	listen(t, target, echo)
	listenUDP(t, target)
	d.ok("network", "create", "mynet")
	published := freePort()
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", published)}, helper, "tcpserve", ":80",
		"addr")
	d.idle("greedy", "--network", "mynet")
	d.idle("modest", "--network", "mynet")
	at := net.JoinHostPort(host4, fmt.Sprint(published))
	d.othersGoOn("modest", at, target)

	first := d.greedy("greedy", target, 600)
	if first < 200 || first > 896 {
		t.Errorf("one container has %d connections, want what leaves as many descriptors free", first)
	}
	if d.counter("descriptor_limit") == 0 {
		t.Error("what was refused is not counted")
	}
	d.othersGoOn("modest", at, target)
	second := d.greedy("modest", target, 500) // there is room for a second one that wants all
	if second < 100 || second > 597 {         // a third each, less what is open for a moment
		t.Errorf("the second container has %d connections", second)
	}
	t.Logf("%d connections of one container, then %d of another", first, second)
	d.othersGoOn("web", at, target)
	if n, limit := d.descriptors(), 2048; n > limit-100 {
		t.Errorf("%d of %d descriptors are in use", n, limit)
	}
}

// attackBudgetOfMemory has one container open 400 connections through its gateway to a server that sends all it can,
// and read nothing.
func attackBudgetOfMemory(t *testing.T) {
	const limit = 16 << 20
	d := startDaemon(t, "--limit-memory", "16MiB")
	flood := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	listen(t, flood, func(c *net.TCPConn) {
		defer c.Close()
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	target := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	listen(t, target, echo)
	listenUDP(t, target)
	d.ok("network", "create", "-o", "usernet.bypass_outbound=false", "-o", "usernet.bypass_inbound=false", "mynet")
	published := freePort()
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", published)}, helper, "tcpserve", ":80",
		"addr")
	d.idle("greedy", "--network", "mynet")
	d.idle("modest", "--network", "mynet")
	at := net.JoinHostPort(host4, fmt.Sprint(published))
	d.othersGoOn("modest", at, target)

	before := d.memory()
	open := d.greedy("greedy", flood, 400)
	d.othersGoOn("modest", at, target)
	grown := d.memory() - before
	t.Logf("%d connections that are not read cost %d KiB, %d KiB each", open, grown>>10, grown>>10/max(open, 1))
	// The runtime's heap may be twice what is in use (GOGC=100), and pools are filled as well.
	if most := 2*limit + 16<<20; !raceBuild && grown > most {
		t.Errorf("it costs %d bytes, want at most %d", grown, most)
	}
	if d.counter("memory_limit") == 0 {
		t.Errorf("with %d connections the limit was not reached", open)
	}
	// What is not read ends with its container: all of it is free again.
	d.ok("rm", "-f", "greedy")
	eventually(t, func() error {
		var info struct{ Budgets struct{ MemoryUsed int64 } }
		d.ask("/usernet/info", &info)
		if info.Budgets.MemoryUsed != 0 {
			return fmt.Errorf("%d bytes are set aside", info.Budgets.MemoryUsed)
		}
		return nil
	})
}
