package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// spliced is how many connections of containers went out without the gateway's TCP between.
func (d *daemon) spliced() int {
	d.t.Helper()
	return d.counter("tcp_bypass_outbound")
}

// isBypassed runs do, and wants its connections on the bypass: none, or one of them where do may have to be repeated.
func (d *daemon) isBypassed(want int, do func()) {
	d.t.Helper()
	if want > 0 {
		d.once("tcp_bypass_outbound", do)
		return
	}
	before := d.spliced()
	do()
	if n := d.spliced() - before; n != 0 {
		d.t.Errorf("%d connections took the bypass, want none", n)
	}
}

func TestBypassOutbound(t *testing.T) {
	t.Parallel()
	d := dual(t)
	here, there := freePort(), freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, here), func(c *net.TCPConn) {
		fmt.Fprintln(c, "you are", c.RemoteAddr())
		c.Close()
	})
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d digest", helper, there))
	target := fmt.Sprintf("%s:%d", host4, here)
	for _, address := range []string{peer4, peer6} {
		t.Run("a transfer with half-close to "+address, func(t *testing.T) {
			d := d.in(t)
			d.isBypassed(1, func() {
				d.says("same 30000000", "box", helper, "tcpsend", net.JoinHostPort(address, fmt.Sprint(there)),
					"30000000")
			})
		})
	}
	t.Run("the source is the host", func(t *testing.T) {
		d := d.in(t)
		d.isBypassed(1, func() { d.says("\nyou are "+host4+":", "box", helper, "tcpdial", target) })
	})
	t.Run("a network without IPv6", func(t *testing.T) {
		d := d.in(t)
		d.ok("network", "create", "four")
		d.idle("fourbox", "--network", "four")
		d.isBypassed(1, func() { d.says("\nyou are "+host4+":", "fourbox", helper, "tcpdial", target) })
	})
	t.Run("the same ports again", func(t *testing.T) {
		d := d.in(t)
		port := 4567
		eventually(t, func() error { // with another port where a connection went by the gateway
			before := d.spliced()
			port++
			for i := range 5 { // the server closes first: the container's port is free again at once
				r := d.exec("box", helper, "tcphold", target, "", fmt.Sprint("port=", port))
				if d.spliced() != before+i+1 {
					return fmt.Errorf("connection %d went by the gateway: %v", i, r)
				}
				if !strings.Contains(r.stdout, "\nyou are") {
					t.Errorf("connection %d: %v", i, r)
				}
			}
			return nil
		})
	})
	t.Run("a socket bound to its interface", func(t *testing.T) {
		d := d.in(t)
		d.isBypassed(1, func() { d.says("\nyou are", "box", helper, "tcpdial", target, "10s", "device=eth0") })
	})
	t.Run("flows tell", func(t *testing.T) {
		d := d.in(t)
		port := freePort()
		listen(t, fmt.Sprintf("%s:%d", host4, port), echo)
		held := d.pastTheGateway(func() *held { return d.hold("box", fmt.Sprintf("%s:%d", host4, port)) })
		held.echoes("1234")
		eventually(t, func() error {
			if out := d.ok("flows"); !regexp.MustCompile(`box +tcp +out .* bypass +5B +5B`).MatchString(out) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		held.in.Close()
	})
	// and may send keepalive probes meanwhile
	t.Run("a container that has closed its half waits for hours", func(t *testing.T) {
		d := d.in(t)
		port, answer := freePort(), make(chan struct{})
		listen(t, fmt.Sprintf("%s:%d", host4, port), func(c *net.TCPConn) {
			<-answer
			c.Close()
		})
		d.pastTheGateway(func() *held {
			return d.talkTo("half closed", usernet, "exec", "box", "sh", "-c", `"$0" "$@" | sed -u "s/^ok .*/ok/"`, helper, "tcpdial", fmt.Sprintf("%s:%d", host4, port), "1h")
		})
		long := func(want bool) func() error {
			return func() error {
				out := d.ok("exec", "box", "nft", "list set ip usernet time_wait")
				if regexp.MustCompile(fmt.Sprintf(`\. %d (timeout \S+ )?expires 23h`, port)).MatchString(out) != want {
					return fmt.Errorf("to be brought back for long: %v is wanted of port %d in %s", want, port, out)
				}
				return nil
			}
		}
		eventually(t, long(true))
		close(answer)
		eventually(t, long(false))
	})
	t.Run("many at once", func(t *testing.T) { // of which some are not on it, and one at least is
		d := d.in(t)
		port := freePort()
		listen(t, fmt.Sprintf("%s:%d", host4, port), echo)
		d.isBypassed(1, func() {
			d.says("echoed 500", "box", helper, "tcpmany", fmt.Sprintf("%s:%d", host4, port),
				"500")
		})
	})
	t.Run("off for a network", func(t *testing.T) {
		d := d.in(t)
		d.ok("network", "create", "-o", "usernet.bypass_outbound=false", "slow")
		published := freePort()
		d.serve("slowbox", []string{"--network", "slow", "-p", fmt.Sprintf("%d:80", published)}, helper, "tcpserve",
			":80")
		d.makeDirect(fmt.Sprintf("127.0.0.1:%d", published)) // which does not need the rules
		d.isBypassed(0, func() { d.says("\nyou are "+host4+":", "slowbox", helper, "tcpdial", target) })
		if out := d.ok("exec", "slowbox", "nft", "list", "tables"); strings.Contains(strings.ReplaceAll(out,
			"usernet-dns", ""), "usernet") {
			t.Errorf("there are rules nevertheless: %s", out)
		}
	})
}

// TestBypassGivesWay has containers in which the bypass cannot be had, and where nothing else may change.
func TestBypassGivesWay(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	target := fmt.Sprintf("%s:%d", host4, port)
	listen(t, target, func(c *net.TCPConn) {
		fmt.Fprintln(c, "you are", c.RemoteAddr())
		c.Close()
	})
	dials := func(d *daemon, name string) {
		d.t.Helper()
		d.says("\nyou are "+host4+":", name, helper, "tcpdial", target)
	}
	dials(d, "box")
	t.Run("multipath TCP", func(t *testing.T) { // of which kernels lose the first byte where SYNs have crossed
		d := d.in(t)
		d.isBypassed(0, func() { d.says("\nyou are", "box", helper, "tcpdial", target, "10s", "multipath") })
	})
	t.Run("a socket that takes no packets from near", func(t *testing.T) {
		d := d.in(t)
		d.idle("near", "--network", "dual")
		d.isBypassed(1, func() { dials(d, "near") })
		other := freePort()
		listen(t, fmt.Sprintf("%s:%d", host4, other), func(c *net.TCPConn) { c.Close() })
		many := `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$0" tcpdial "$1" 2s minttl=255 & done; wait`
		// near as the gateway is
		d.says("timeout", "near", "sh", "-c", many, helper, fmt.Sprintf("%s:%d", host4, other))
		d.isBypassed(1, func() { dials(d, "near") })
	})
	t.Run("a service of the container at the same port", func(t *testing.T) {
		d := d.in(t)
		d.serve("server", []string{"--network", "dual"}, helper, "tcpserve", fmt.Sprintf(":%d", port))
		d.isBypassed(0, func() { dials(d, "server") })
	})
	for name, rule := range map[string]string{
		"a packet filter of the container on lo": "in { type filter hook input priority 0; }; add rule inet own in iifname lo drop",
		"masquerading":                           "post { type nat hook postrouting priority 100; }; add rule inet own post oifname eth0 masquerade",
	} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			box, _, _ := strings.Cut(name, " ")
			d.idle("own-"+box, "--network", "dual")
			d.says("", "own-"+box, "nft", "add table inet own; add chain inet own "+rule)
			d.isBypassed(0, func() { dials(d, "own-"+box) })
			dials(d, "own-"+box)
		})
	}
	t.Run("NAT of the container", func(t *testing.T) {
		d := d.in(t)
		d.idle("nat", "--network", "dual")
		const elsewhere4, elsewhere6 = "203.0.113.9", "2001:db8:9::9" // RFC 5737, RFC 3849
		startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
		d.says("", "nat", "nft", "add table inet own; add chain inet own out { type nat hook output priority -100; }; "+
			"add rule inet own out ip daddr "+elsewhere4+" dnat ip to "+host4+"; add rule inet own out ip6 daddr "+
			elsewhere6+" dnat ip6 to "+peer6)
		d.isBypassed(0, func() {
			d.says("\nyou are "+host4+":", "nat", helper, "tcpdial", fmt.Sprintf("%s:%d", elsewhere4, port))
			d.says("ok", "nat", helper, "tcpdial", fmt.Sprintf("[%s]:%d", elsewhere6, port))
		})
		d.isBypassed(0, func() { dials(d, "nat") })
		d.says("", "nat", "nft", "delete table inet own")
		d.isBypassed(1, func() { dials(d, "nat") })
	})
	t.Run("a namespace behind the container", func(t *testing.T) {
		d := d.in(t)
		d.idle("router", "--network", "dual", "--privileged")
		d.says("", "router", "nft", "add table ip own; add chain ip own post { type nat hook postrouting priority 100; }; "+
			"add rule ip own post ip saddr 192.168.77.0/24 masquerade")
		d.isBypassed(0, func() {
			d.says("\nyou are "+host4+":", "router", "sh", "-ec", `
echo 1 > /proc/sys/net/ipv4/ip_forward
unshare -n sh -ec '
	ip link add eth9 type veth peer name behind netns $2
	nsenter -t $2 -n ip addr add 192.168.77.1/24 dev behind
	nsenter -t $2 -n ip link set behind up
	ip addr add 192.168.77.2/24 dev eth9
	ip link set eth9 up
	ip route add default via 192.168.77.1
	"$0" tcpdial "$1"' "$0" "$1" $$`, helper, target)
		})
		d.isBypassed(1, func() { dials(d, "router") })
	})
	t.Run("rules that the container removed", func(t *testing.T) {
		d := d.in(t)
		d.idle("flush", "--network", "dual")
		dials(d, "flush")
		d.says("", "flush", "nft", "flush", "ruleset")
		eventually(t, func() error {
			if r := d.exec("flush", helper, "tcpdial", target); !strings.Contains(r.stdout, "you are") {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	})
	t.Run("a container that changes its rules reaches no more", func(t *testing.T) {
		d := d.in(t)
		d.idle("jail", "--network", "dual", "--egress", "deny", "--allow-egress", host4)
		startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
		dials(d, "jail")
		d.says("ECONNREFUSED", "jail", helper, "tcpdial", fmt.Sprintf("%s:%d", peer4, port))
		// What goes to the peer is declared part of connections that are diverted already.
		d.says("", "jail", "nft", "insert rule ip usernet out ip daddr "+peer4+" meta mark set 0x75736e75 accept")
		if out := d.exec("jail", helper, "tcpdial", fmt.Sprintf("%s:%d", peer4, port), "2s").stdout; strings.HasPrefix(
			out, "ok") {
			t.Errorf("a way around the policy: %s", out)
		}
		d.says("", "jail", "nft", "flush table ip usernet; add rule ip usernet out ip daddr "+host4+" ip daddr set "+
			peer4)
		if out := d.exec("jail", helper, "tcpdial", target, "2s").stdout; strings.HasPrefix(out, "ok") {
			t.Errorf("a way around the policy by NAT: %s", out)
		}
	})
}

// TestKilledDaemonResetsConnections holds connections on the bypass and to published ports through a kill of the
// daemon: what looks like the end of the stream would be taken for all that there was.
func TestKilledDaemonResetsConnections(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port, published := freePort(), freePort()
	peer := make(chan error, 100) // of all, also those that went by the gateway
	listen(t, fmt.Sprintf("%s:%d", host4, port), func(c *net.TCPConn) {
		buf := make([]byte, 1)
		c.Write([]byte("x"))
		_, err := c.Read(buf)
		peer <- err
	})
	d.serve("web", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", published)}, helper, "tcpserve", ":80")
	d.makeDirect(fmt.Sprintf("127.0.0.1:%d", published))
	var client net.Conn
	d.once("tcp_bypass_inbound", func() {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", published))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		client = c
	})
	h := d.pastTheGateway(func() *held { return d.hold("box", fmt.Sprintf("%s:%d", host4, port)) })
	d.stop(os.Kill)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client of a published port reads %v, want a reset", err)
	}
	var err error
	// those by the gateway ended with their clients
	for deadline := time.After(patience); err == nil || errors.Is(err, io.EOF); {
		select {
		case err = <-peer:
		case <-deadline:
			t.Fatal("the peer of a container reads nothing")
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer of a container reads %v, want a reset", err)
	}
	if got := h.next(); !strings.HasSuffix(got, "ECONNRESET") {
		t.Errorf("the container's connection ended with %q, want ECONNRESET", got)
	}
	d.start()
}
