package test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// apart makes a network whose containers reach each other by links only.
func (d *daemon) apart(name string) {
	d.t.Helper()
	d.ok("network", "create", "--ipv6", "-o", "com.docker.network.bridge.enable_icc=false", name)
}

// servers runs what listens on the given ports: tcp:PORT says the client's address, echo:PORT and udp:PORT send back.
func (d *daemon) servers(name string, flags []string, ports ...string) {
	d.t.Helper()
	script := ""
	for _, p := range ports {
		kind, port, _ := strings.Cut(p, ":")
		switch kind {
		case "tcp":
			script += `"$0" tcpserve :` + port + " addr & "
		case "echo":
			script += `"$0" tcpserve :` + port + " echo & "
		case "udp":
			script += `"$0" udpserve :` + port + " & "
		}
	}
	d.container(name, flags, "sh", "-c", script+"wait", helper)
	eventually(d.t, func() error {
		if r := d.try("logs", name); strings.Count(r.stdout, "listening") != len(ports) {
			return fmt.Errorf("not all of %v listen: %v", ports, r)
		}
		return nil
	})
}

// opens says whether a TCP connection comes about in a time in which one that is let through does.
func (d *daemon) opens(from, address string) bool {
	d.t.Helper()
	return strings.HasPrefix(d.ok("exec", from, helper, "tcpdial", address, "1s"), "ok")
}

// becomes waits until a TCP connection comes about, or none does any more.
func (d *daemon) becomes(want bool, from, address string) {
	d.t.Helper()
	eventually(d.t, func() error {
		if d.opens(from, address) != want {
			return fmt.Errorf("%s reaches %s: not %v", from, address, want)
		}
		return nil
	})
}

func TestLinksLeadToExposedPortsOfNeighboursKeptApart(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.apart("apart")
	d.servers("db", []string{"--network", "apart", "--expose", "80", "--expose", "553/udp", "--expose", "554/udp", "-p",
		fmt.Sprintf("%d:7", freePort())},
		"tcp:80", "tcp:22", "echo:7", "udp:553")
	d.servers("web", []string{"--network", "apart", "--expose", "80", "--link", "db:store"}, "tcp:80")
	d.servers("other", []string{"--network", "apart", "--expose", "80"}, "tcp:80")
	db4, db6, web4, web6 := d.address("db"), d.address6("db"), d.address("web"), d.address6("web")
	kept := d.hold("web", net.JoinHostPort(db4, "7"))
	check := func(when string) {
		t.Helper()
		for _, host := range []string{"db", "store", db4, db6} {
			d.says("ok", "web", helper, "tcpdial", net.JoinHostPort(host, "80"))
			d.says("hello", "web", helper, "udpdial", net.JoinHostPort(host, "553"))
		}
		for _, host := range []string{db4, db6} {
			d.says("same 4000", "web", helper, "udpdial", net.JoinHostPort(host, "553"), "4000") // in fragments
			d.says("ECONNREFUSED", "web", helper, "udpdial", net.JoinHostPort(host, "554"))
			if d.opens("web", net.JoinHostPort(host, "22")) {
				t.Errorf("%s the link leads to port 22 of %s, which is not exposed", when, host)
			}
			if d.opens("other", net.JoinHostPort(host, "80")) {
				t.Errorf("%s port 80 of %s is reached without a link", when, host)
			}
			if r := d.exec("web", "ping", "-c1", "-W1", host); r.code == 0 {
				t.Errorf("%s the link lets a ping through: %v", when, r)
			}
		}
		for _, host := range []string{web4, web6} {
			if d.opens("db", net.JoinHostPort(host, "80")) {
				t.Errorf("%s the link leads backwards to %s", when, host)
			}
		}
		if d.opens("web", "other:80") {
			t.Errorf("%s a port is reached without a link", when)
		}
		kept.echoes(when)
	}
	check("at first")
	if n := d.portDrops("apart", "web")["isolated"]; n == 0 {
		t.Error("what the link does not cover is not counted")
	}
	d.stop(syscall.SIGKILL)
	d.start()
	check("after a kill and a start")
}

func TestLinksOfNeighboursKeptApartFollowChanges(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.apart("apart")
	d.apart("second")
	d.servers("web", []string{"--network", "apart", "--link", "db:store"}, "tcp:80") // before there is a db
	server := func(name string) {
		d.servers(name, []string{"--network", "apart", "--expose", "80"}, "tcp:80", "tcp:81")
	}
	server("db")
	first := d.address("db")
	d.becomes(true, "web", "store:80")

	d.ok("rename", "db", "attic")
	d.becomes(false, "web", first+":80")
	d.ok("rename", "attic", "db")
	d.becomes(true, "web", first+":80")

	d.ok("rm", "-f", "db")
	server("taker") // of the address
	if got := d.address("taker"); got != first {
		t.Fatalf("the address %s was not taken, but %s", first, got)
	}
	d.becomes(false, "web", first+":80")
	server("db")
	d.becomes(true, "web", "store:80")
	d.becomes(true, "web", d.address("db")+":80")

	address := d.address("db") + ":81"
	d.becomes(false, "web", address)
	d.ok("port", "add", "db", "-p", fmt.Sprintf("%d:81", freePort()))
	d.becomes(true, "web", address)

	d.ok("network", "disconnect", "apart", "web")
	d.ok("network", "connect", "second", "db")
	d.ok("network", "connect", "--link", "db:again", "second", "web")
	d.becomes(true, "web", "again:80")
	d.ok("network", "disconnect", "second", "db")
	d.ok("network", "connect", "second", "db")
	d.becomes(true, "web", "again:80")
	d.ok("network", "connect", "apart", "web")
	d.becomes(false, "web", address) // the new endpoint has no link
}
