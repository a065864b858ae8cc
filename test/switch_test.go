package test

import (
	"fmt"
	"strings"
	"testing"
)

// twoOn starts two containers on a new network.
func twoOn(d *daemon, network string, flags ...string) {
	d.t.Helper()
	d.ok(append([]string{"network", "create", network}, flags...)...)
	d.idle(network+"-a", "--network", network)
	d.idle(network+"-b", "--network", network)
}

// background runs a command in a container that first says "listening"; the returned function gives
// all its output once it has ended.
func (d *daemon) background(container string, command ...string) func() string {
	d.t.Helper()
	file := fmt.Sprintf("%s/%s-%d.out", d.dir, container, freePort()) // the sandbox sees the same files
	done := make(chan result, 1)
	script := `"$@" >` + file + ` 2>&1`
	args := append([]string{"exec", container, "sh", "-c", script, "sh"}, command...)
	go func() { done <- d.command(usernet, args...) }()
	eventually(d.t, func() error {
		return fileHas(file, "listening")
	})
	return func() string {
		d.t.Helper()
		if r := <-done; r.code != 0 {
			d.t.Errorf("failed: %v", r)
		}
		return strings.TrimPrefix(readFile(d.t, file), "listening\n")
	}
}

func TestSwitchCarriesEveryKindOfFrame(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	twoOn(d, "lan")
	macA, macB := d.mac("lan-a"), d.mac("lan-b")
	for _, test := range []struct{ name, etherType, destination string }{
		{"unicast of an odd EtherType", "0x88b5", macB},
		{"broadcast of an odd EtherType", "0x88b6", "ff:ff:ff:ff:ff:ff"},
		{"multicast of an odd EtherType", "0x88b5", "03:00:00:00:00:01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := d.in(t)
			if strings.HasPrefix(test.destination, "03") {
				d.ok("exec", "lan-b", "ip", "link", "set", "eth0", "allmulticast", "on")
			}
			got := d.background("lan-b", helper, "l2recv", "eth0", test.etherType, "100")
			d.ok("exec", "lan-a", helper, "l2send", "eth0", test.etherType, test.destination, "hello frame")
			if out := got(); !strings.Contains(out, macA+" hello frame") {
				t.Errorf("received: %s", out)
			}
		})
	}
	t.Run("IPv4 multicast", func(t *testing.T) {
		d := d.in(t)
		got := d.background("lan-b", helper, "mcrecv", "eth0", "239.1.2.3:5000")
		d.ok("exec", "lan-a", helper, "mcsend", "eth0", "239.1.2.3:5000", "many")
		if out := got(); !strings.Contains(out, d.address("lan-a")+" many") {
			t.Errorf("received: %s", out)
		}
	})
	t.Run("IPv4 broadcast", func(t *testing.T) {
		d := d.in(t)
		d.says(" 0% packet loss", "lan-a", "sh", "-c", "ip neigh flush all; ping -c1 -W5 "+d.address("lan-b"))
	})
}

func TestForgedSourceAddressIsDropped(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	twoOn(d, "lan")
	got := d.background("lan-b", helper, "l2recv", "eth0", "0x88b5", "100")
	d.ok("exec", "lan-a", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "forged", "02:00:00:00:00:99")
	d.ok("exec", "lan-a", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "honest")
	if out := got(); !strings.Contains(out, "honest") {
		t.Errorf("the frame with a forged source came through first: %s", out)
	}
}

func TestNetworksAreIsolated(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	twoOn(d, "red")
	twoOn(d, "blue")
	d.serve("target", []string{"--network", "blue"}, helper, "tcpserve", ":80", "addr")
	address := d.address("target")
	d.says("ok", "blue-a", helper, "tcpdial", address+":80")
	for _, target := range []string{address + ":80", d.address("blue-a") + ":1"} {
		out := d.ok("exec", "red-a", helper, "tcpdial", target, "3s")
		if strings.HasPrefix(out, "ok") || strings.HasPrefix(out, "ECONNREFUSED") {
			t.Errorf("red reaches blue's %s: %s", target, out)
		}
	}
	if r := d.exec("red-a", "ping", "-c1", "-W2", address); r.code == 0 {
		t.Errorf("red pings blue: %v", r)
	}
	if r := d.exec("red-a", "dig", "+short", "+time=2", "target"); strings.Contains(r.stdout, address) {
		t.Errorf("red resolves blue's name: %v", r)
	}
	got := d.background("blue-b", helper, "l2recv", "eth0", "0x88b5", "3")
	d.ok("exec", "red-a", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "over the fence")
	if out := got(); !strings.Contains(out, "nothing") {
		t.Errorf("a broadcast crossed networks: %s", out)
	}
}

func TestConnectAndDisconnectWhileRunning(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("one")
	twoOn(d, "mynet")
	d.ok("network", "connect", "--alias", "uno", "mynet", "one")
	d.says("eth1", "one", "ip", "-br", "link")
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "mynet-a")
	d.says(" 0% packet loss", "mynet-a", "ping", "-c1", "-W5", "uno")
	d.ok("network", "disconnect", "mynet", "one")
	if r := d.exec("one", "ip", "-br", "link"); strings.Contains(r.stdout, "eth1") {
		t.Errorf("the interface stayed: %v", r)
	}
	if r := d.exec("mynet-a", "ping", "-c1", "-W2", "one"); r.code == 0 {
		t.Errorf("the name stayed: %v", r)
	}
}

func TestAddressesAsDockerGivesThem(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "n1")
	d.ok("network", "create", "n2")
	d.ok("network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254", "n3")
	for _, test := range []struct{ network, subnet, gateway string }{
		{"bridge", "172.17.0.0/16", "172.17.0.1"},
		{"n1", "172.18.0.0/16", "172.18.0.1"},
		{"n2", "172.19.0.0/16", "172.19.0.1"},
		{"n3", "10.77.0.0/24", "10.77.0.254"},
	} {
		out := d.ok("network", "inspect", test.network)
		if !strings.Contains(out, `"`+test.subnet+`"`) || !strings.Contains(out, `"`+test.gateway+`"`) {
			t.Errorf("%s has not %s and %s: %s", test.network, test.subnet, test.gateway, out)
		}
	}
	d.idle("one", "--network", "n3", "--ip", "10.77.0.9", "--mac-address", "02:11:22:33:44:55")
	d.says("10.77.0.9/24", "one", "ip", "-4", "addr", "show", "eth0")
	d.says("02:11:22:33:44:55", "one", "ip", "link", "show", "eth0")
	d.says("default via 10.77.0.254 dev eth0", "one", "ip", "route")
	d.idle("two", "--network", "n3")
	if got := d.address("two"); got != "10.77.0.1" {
		t.Errorf("the lowest free address is not the second container's: %s", got)
	}
	d.fails("Address already in use", "run", "-d", "--network", "n3", "--ip", "10.77.0.9", "--", "true")
	d.fails("no configured subnet", "run", "-d", "--network", "n3", "--ip", "10.78.0.9", "--", "true")
	d.fails("Pool overlaps with other one on this address space", "network", "create", "--subnet", "10.77.0.128/25",
		"n4")
	d.ok("rm", "-f", "one")
	d.idle("three", "--network", "n3", "--ip", "10.77.0.9")
	d.says(" 0% packet loss", "two", "ping", "-c1", "-W5", "three")
}
