package test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// fill sends on c until nothing more is taken for a second.
func fill(c net.Conn) error {
	for piece := make([]byte, 64<<10); ; {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(piece)
		switch {
		case n == 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
}

// stalled is a container with one connection whose receiver reads nothing, in each path and direction.
func (d *daemon) stalled(name, path, direction string) *held {
	d.t.Helper()
	port, mode := freePort(), map[string]string{"out": "send", "in": "receive"}[direction]
	host := make(chan net.Conn, 1)
	network := map[bool]string{true: "bypassed", false: "gateway"}[strings.HasPrefix(path, "bypassed")]
	var talk *held
	if strings.HasSuffix(path, "published") {
		d.idle(name, "--network", network, "-p", fmt.Sprintf("127.0.0.1:%d:80", port))
		talk = d.starts("listening", name, "tcpstall", "serve-"+mode, ":80")
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			d.t.Fatal(err)
		}
		host <- c
	} else {
		d.idle(name, "--network", network)
		address := fmt.Sprintf("%s:%d", host4, port)
		listen(d.t, address, func(c *net.TCPConn) { host <- c })
		args := []string{"tcpstall", mode, address}
		if network == "gateway" { // whose SYN the bypass does not take
			args = append(args, "multipath")
		}
		talk = d.starts("ok", name, args...)
	}
	c := <-host
	d.t.Cleanup(func() { c.Close() })
	if strings.HasSuffix(path, "published") {
		talk.wants("ok")
	}
	if direction == "out" {
		talk.wants("stalled")
	} else if err := fill(c); err != nil {
		d.t.Fatal(err)
	}
	return talk
}

// answersSoon runs a command, which must not take long.
func (d *daemon) answersSoon(args ...string) string {
	d.t.Helper()
	r := d.command("timeout", append([]string{"30", usernet}, args...)...)
	if r.code != 0 {
		d.t.Fatalf("no answer: %v", r)
	}
	return r.stdout
}

func attackStalledOutbound(t *testing.T) { attackStalled(t, "gateway outbound", "bypassed outbound") }
func attackStalledPublished(t *testing.T) {
	attackStalled(t, "gateway published", "bypassed published")
}

// attackStalled ends containers, connections and the daemon itself while data waits for a receiver that reads nothing.
func attackStalled(t *testing.T, paths ...string) {
	d := startDaemon(t)
	d.ok("network", "create", "gateway", "-o", "usernet.bypass_inbound=false", "-o", "usernet.bypass_outbound=false")
	d.ok("network", "create", "bypassed")
	for _, path := range paths {
		for _, direction := range []string{"out", "in"} {
			name := strings.ReplaceAll(path, " ", "-") + "-" + direction
			t.Run(path+", "+direction+", the container ends", func(t *testing.T) {
				d := d.in(t)
				d.stalled(name, path, direction)
				d.answersSoon("flows")
				d.answersSoon("rm", "-f", name)
				d.answersSoon("ps")
				eventually(t, func() error {
					if out := d.answersSoon("flows"); strings.Contains(out, name) {
						return fmt.Errorf("flows of a container that has ended:\n%s", out)
					}
					return nil
				})
			})
			t.Run(path+", "+direction+", the container resets it", func(t *testing.T) {
				d := d.in(t)
				talk := d.stalled(name+"-r", path, direction)
				fmt.Fprintln(talk.in, "reset")
				talk.wants("reset")
				eventually(t, func() error {
					if out := d.answersSoon("flows"); strings.Contains(out, name+"-r") {
						return fmt.Errorf("a flow that its container has reset:\n%s", out)
					}
					return nil
				})
				d.answersSoon("rm", "-f", name+"-r")
			})
			d.stalled(name+"-s", path, direction) // SIGTERM meets these
		}
	}
}

// attackMalformedTCP sends SYNs with every data offset from containers with and without the port guard.
func attackMalformedTCP(t *testing.T) {
	d := startDaemon(t)
	for _, flags := range [][]string{{"--no-port-guard"}, {}} {
		name := fmt.Sprint("box", len(flags))
		d.idle(name, flags...)
		d.exec(name, "ping", "-c1", "-W1", d.gateway(name)) // so that its MAC address is known
		gateway, err := net.ParseMAC(d.field(`lladdr (\S+)`, name, "ip", "neigh", "show", d.gateway(name)))
		if err != nil {
			t.Fatal(err)
		}
		mac, err := net.ParseMAC(d.mac(name))
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"exec", name, helper, "l2raw", "eth0", "1"}
		for offset := range byte(16) {
			syn := make([]byte, 20)
			binary.BigEndian.PutUint16(syn, 1000+uint16(offset))
			syn[3], syn[12], syn[13] = 80, offset<<4, 2 // to port 80, SYN
			packet := ip4(netip.MustParseAddr(d.address(name)), netip.MustParseAddr(host4), 6, 0, nil, syn)
			args = append(args, hex.EncodeToString(frameOf(gateway, mac, 0x0800, packet)))
		}
		d.ok(args...)
		d.answersSoon("ps")
		d.says(" 0% packet loss", name, "ping", "-c1", "-W5", d.gateway(name))
	}
}

// attackHairpin goes around a policy by way of the host: its own addresses, those of gateways, and the published ports
// there.
func attackHairpin(t *testing.T) {
	d := startDaemon(t)
	port := freePort()
	listen(t, fmt.Sprintf("0.0.0.0:%d", port+1), echo)
	d.ok("network", "create", "--ipv6", "--egress", "deny", "jail")
	d.ok("network", "create", "--ipv6", "open")
	d.serve("web", []string{"--network", "open", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	d.idle("box", "--network", "jail")
	d.idle("free", "--network", "open")
	gateway6 := strings.Fields(d.field(`default via (\S+)`, "box", "ip", "-6", "route"))[0]
	hosts := []string{host4, "[" + host6 + "]", d.gateway("box"), "[" + gateway6 + "]", d.gateway("web"), "172.17.0.1"}
	for _, service := range []int{port, port + 1} {
		for _, host := range hosts {
			target := fmt.Sprintf("%s:%d", host, service)
			if out := d.ok("exec", "box", helper, "tcpdial", target, "2s"); strings.HasPrefix(out, "ok") {
				t.Errorf("%s: %s", target, out)
			}
		}
		d.says("ok", "free", helper, "tcpdial", fmt.Sprintf("%s:%d", d.gateway("free"), service))
	}
	d.idle("ruled", "--network", "jail", "--allow-egress", fmt.Sprintf("%s:%d", d.gateway("box"), port))
	d.says("ok", "ruled", helper, "tcpdial", fmt.Sprintf("%s:%d", d.gateway("box"), port))
	for _, metadata := range []string{"169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192"} {
		d.says("ECONNREFUSED", "free", helper, "tcpdial", metadata+":80", "2s")
	}
	d.says("ECONNREFUSED", "free", helper, "tcpdial", "[fd20:ce::254]:80", "2s")
}
