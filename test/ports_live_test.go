package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestPortsOfARunningContainer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.serve("web", nil, "sh", "-c", helper+" tcpserve :81 & exec "+helper+" tcpserve :80 addr")
	answers := func(port int) string {
		return d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)).stdout
	}
	out := d.ok("port", "add", "web", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:80/udp", port))
	if !strings.Contains(out, fmt.Sprintf("80/tcp -> 0.0.0.0:%d", port)) ||
		!strings.Contains(out, fmt.Sprintf("80/udp -> [::]:%d", port)) {
		t.Errorf("port add prints %s", out)
	}
	if out := answers(port); !strings.HasPrefix(out, "ok") {
		t.Errorf("the added port: %s", out)
	}
	if out := d.ok("port", "web", "80/udp"); !strings.Contains(out, fmt.Sprintf("0.0.0.0:%d", port)) ||
		strings.Contains(out, "->") {
		t.Errorf("port web 80/udp prints %s", out)
	}
	if out := d.ok("ps"); !strings.Contains(out, fmt.Sprintf("0.0.0.0:%d->80/tcp", port)) {
		t.Errorf("ps does not show the added port: %s", out)
	}
	// A connection that is open outlives its port.
	d.ok("port", "add", "web", "-p", fmt.Sprintf("%d:81", port+1))
	held := d.keep(helper, "tcphold", fmt.Sprintf("127.0.0.1:%d", port+1), "stdin")
	defer held.Close()
	eventually(t, func() error {
		if !strings.Contains(d.ok("flows", "web"), "tcp") {
			return fmt.Errorf("not connected")
		}
		return nil
	})
	d.ok("port", "rm", "web", fmt.Sprintf("%d:80", port), "81")
	if !strings.Contains(d.ok("flows", "web"), "tcp") {
		t.Error("the connection ended with its port")
	}
	if out := answers(port); !strings.HasPrefix(out, "ECONNREFUSED") {
		t.Errorf("the removed port: %s", out)
	}
	if !strings.Contains(d.ok("port", "web"), "80/udp") {
		t.Error("the UDP port went with the TCP port")
	}
	d.fails("does not publish", "port", "rm", "web", "82")
	d.fails("no public port '81/tcp'", "port", "web", "81")
	d.fails("No such container", "port", "add", "nobody", "-p", "80")

	// All or nothing: the 57th of a range is taken.
	base := freePort() + 10000
	listen(t, fmt.Sprintf("127.0.0.1:%d", base+56), echo)
	d.fails("port is already allocated", "port", "add", "web", "-p", fmt.Sprintf("%d-%d:1000-1099", base, base+99))
	for _, i := range []int{0, 55, 57, 99} {
		if out := answers(base + i); !strings.HasPrefix(out, "ECONNREFUSED") {
			t.Errorf("port %d of the failed range: %s", i, out)
		}
	}
	// The first free one of a range.
	out = d.ok("port", "add", "web", "-p", fmt.Sprintf("127.0.0.1:%d-%d:80", base+56, base+58))
	if !strings.Contains(out, fmt.Sprintf("127.0.0.1:%d", base+57)) {
		t.Errorf("the first free port of a range: %s", out)
	}
	// Ports that were added are there after a restart.
	d.stop(os.Interrupt)
	d.start()
	if out := answers(base + 57); !strings.HasPrefix(out, "ok") {
		t.Errorf("after a restart: %s", out)
	}
}

// TestTenThousandPorts publishes them in one command and watches what that costs the daemon.
func TestTenThousandPorts(t *testing.T) {
	d := startDaemon(t, "--no-bypass-inbound") // whose stock of sockets would be counted
	d.serve("web", nil, helper, "tcpserve", ":10123", "addr")
	sockets, memory := d.descriptors(), d.memory()
	began := time.Now()
	d.ok("port", "add", "web", "-p", "10000-19999:10000-19999")
	took := time.Since(began)
	if n := d.descriptors() - sockets; n > 10010 { // one socket takes both families; a little for what comes and goes
		t.Errorf("10000 ports took %d descriptors", n)
	}
	grown := d.memory() - memory
	t.Logf("10000 ports published in %v, %d MiB", took, grown>>20)
	if grown > 96<<20 && !raceBuild { // each is a record of its own, and 10,000 are written at once
		t.Errorf("10000 ports took %d MiB", grown>>20)
	}
	if out := d.command(helper, "tcpdial", "127.0.0.1:10123").stdout; !strings.HasPrefix(out, "ok") {
		t.Errorf("one of them: %s", out)
	}
	if out := d.ok("ps"); !strings.Contains(out, "0.0.0.0:10000-19999->10000-19999/tcp") {
		t.Errorf("ps does not fold the range: %.300s", out)
	}
	d.ok("port", "rm", "web", "10000-19999:10000-19999")
	eventually(t, func() error {
		if n := d.descriptors(); n > sockets+2 {
			return fmt.Errorf("%d descriptors, %d before", n, sockets)
		}
		return nil
	})
}

// descriptors is how many the daemon has open, by its own count: /proc does not show those of a process that is not
// dumpable.
func (d *daemon) descriptors() int {
	d.t.Helper()
	var info struct{ NFd int }
	d.ask("/info", &info)
	if info.NFd == 0 {
		d.t.Fatal("the daemon does not count its descriptors")
	}
	return info.NFd
}

// memory is the daemon's resident memory in bytes.
func (d *daemon) memory() int {
	d.t.Helper()
	status := readFile(d.t, filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "status"))
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindStringSubmatch(status)
	if match == nil {
		d.t.Fatalf("no VmRSS in %s", status)
	}
	kib, err := strconv.Atoi(match[1])
	if err != nil {
		d.t.Fatal(err)
	}
	return kib << 10
}

func TestUDPPorts(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80/udp", port)}, helper, "udpserve", ":80",
		"addr")
	d.idle("sibling", "--network", "mynet")
	t.Run("replies come from the address that was asked", func(t *testing.T) {
		// two of the host's addresses; a connected socket takes no other's answer
		for _, address := range []string{host4, resolver} {
			target := fmt.Sprintf("%s:%d", address, port)
			if out := atPeer(t, helper+" udpdial "+target); !sourceIs(out, peer4) {
				t.Errorf("%s: %s", target, out)
			}
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		d := d.in(t)
		gateway := d.gateway("web")
		for _, client := range []string{"web", "sibling"} {
			for _, address := range []string{host4, gateway} {
				if out := d.ok("exec", client, helper, "udpdial", fmt.Sprintf("%s:%d", address, port)); !sourceIs(out,
					gateway) {
					t.Errorf("%s through %s: %s", client, address, out)
				}
			}
		}
	})
	t.Run("clients that share the gateway's address are kept apart", func(t *testing.T) {
		var clients []net.Conn
		for _, address := range []string{"127.0.0.1", host4, resolver} {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address), Port: port + 5},
				&net.UDPAddr{IP: net.ParseIP(address), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		seen := map[string]bool{}
		for _, c := range clients {
			answer := make([]byte, 100)
			var n int
			eventually(t, func() (err error) {
				fmt.Fprint(c, "?")
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, err = c.Read(answer)
				return err
			})
			seen[string(answer[:n])] = true
		}
		if len(seen) != len(clients) {
			t.Errorf("the service cannot tell them apart: %v", seen)
		}
	})
}
