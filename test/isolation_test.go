package test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestNoPathBetweenNetworks tries everything that a container could reach another network by.
func TestNoPathBetweenNetworks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "red")
	d.ok("network", "create", "--ipv6", "blue")
	d.idle("red-a", "--network", "red")
	port := freePort()
	d.serve("target", []string{"--network", "blue", "-p", fmt.Sprintf("%d:81", port)}, helper, "tcpserve", ":80",
		"addr")
	d.idle("blue-a", "--network", "blue")
	d.says("ok", "blue-a", helper, "tcpdial", "target:80")

	gateway := d.gateway("target")
	gateway6 := d.field(`default via ([0-9a-f:]+)`, "target", "ip", "-6", "route")
	tried := 0
	for _, host := range []string{d.address("target"), d.address6("target"), gateway, gateway6, d.address("blue-a")} {
		for _, service := range []string{"80", "53", "81"} {
			address := net.JoinHostPort(host, service)
			if out := d.ok("exec", "red-a", helper, "tcpdial", address, "1s"); strings.HasPrefix(out, "ok") {
				t.Errorf("TCP to %s: %s", address, out)
			}
			tried++
		}
		if r := d.exec("red-a", "ping", "-c1", "-W1", host); r.code == 0 {
			t.Errorf("ping to %s: %v", host, r)
		}
		if r := d.exec("red-a", "dig", "+short", "+tries=1", "+time=1", "@"+host, "target"); r.code == 0 &&
			strings.Contains(r.stdout, ".") && !strings.Contains(r.stdout, ";;") {
			t.Errorf("DNS at %s: %v", host, r)
		}
		tried += 2
	}
	// The target's own subnet by way of this network's gateway, as a router.
	for _, route := range []string{
		"ip route replace " + d.address("target") + "/32 via " + d.gateway("red-a"),
		"ip route replace " + d.address("target") + "/32 dev eth0",
		"ip addr add " + d.address("blue-a") + "/16 dev eth0 && ip route replace " + d.address("target") +
			"/32 dev eth0 src " + d.address("blue-a"),
	} {
		d.ok("exec", "red-a", "sh", "-c", route)
		if out := d.ok("exec", "red-a", helper, "tcpdial", d.address("target")+":80", "1s"); strings.HasPrefix(out,
			"ok") {
			t.Errorf("after %q: %s", route, out)
		}
		tried++
	}
	for _, name := range []string{"target", "blue-a", "target.blue"} {
		if r := d.exec("red-a", "dig", "+short", "+tries=1", "+time=2", name); strings.Contains(r.stdout, d.address(
			"target")) || strings.Contains(r.stdout, d.address("blue-a")) {
			t.Errorf("the name %s is known: %v", name, r)
		}
		tried++
	}
	t.Logf("%d ways tried, none led to the other network", tried)
}

func TestInternalNetworkWithRoutesOfItsOwnHasNoWayOut(t *testing.T) {
	d := startDaemon(t)
	port := freePort()
	listen(t, net.JoinHostPort(host4, fmt.Sprint(port)), echo)
	d.ok("network", "create", "--internal", "--ipv6", "cell")
	d.serve("web", []string{"--network", "cell"}, helper, "tcpserve", ":80", "addr")
	d.idle("box", "--network", "cell")
	d.says("ok", "box", helper, "tcpdial", "web:80")
	subnet := d.address("box")
	gateway := subnet[:strings.LastIndex(subnet, ".")] + ".1"
	for _, prepare := range []string{"true", "ip route replace default via " + gateway,
		"ip route replace default dev eth0"} {
		d.try("exec", "box", "sh", "-c", prepare)
		for _, address := range []string{host4, peer4, host6, "169.254.169.254"} {
			if out := d.ok("exec", "box", helper, "tcpdial", net.JoinHostPort(address, fmt.Sprint(port)),
				"2s"); strings.HasPrefix(out, "ok") || strings.HasPrefix(out, "ECONNREFUSED") {
				t.Errorf("after %q, %s: %s", prepare, address, out)
			}
			if r := d.exec("box", "ping", "-c1", "-W1", address); r.code == 0 {
				t.Errorf("after %q, ping %s: %v", prepare, address, r)
			}
		}
		before := queries.Load()
		if r := d.exec("box", "dig", "+short", "+tries=1", "+time=2", "www.example.test"); strings.Contains(r.stdout,
			host4) || queries.Load() != before {
			t.Errorf("after %q, a name of the outside: %v", prepare, r)
		}
	}
}

func TestNeighboursKeptApartReachPublishedPortsOnly(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.ok("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
	d.serve("web", []string{"--network", "apart", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	d.idle("box", "--network", "apart")
	if out := d.ok("exec", "box", helper, "tcpdial", d.address("web")+":80", "3s"); strings.HasPrefix(out, "ok") {
		t.Errorf("a neighbour's port: %s", out)
	}
	if r := d.exec("box", "ping", "-c1", "-W1", d.address("web")); r.code == 0 {
		t.Errorf("ping to a neighbour: %v", r)
	}
	d.says("ok", "box", helper, "tcpdial", net.JoinHostPort(host4, fmt.Sprint(port)), "5s")
}
