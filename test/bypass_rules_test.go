package test

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestContainersOwnRulesSeePublishedConnections has containers set up packet filters, redirections and queues for their
// interface while connections to their ports pass it by.
func TestContainersOwnRulesSeePublishedConnections(t *testing.T) {
	t.Parallel()
	d := dual(t)
	for _, c := range []struct {
		name, set, unset string
		reached          bool // the service at port 80, which tells the client its address
	}{
		{"a firewall that accepts lo",
			"nft 'add table inet own; add chain inet own in { type filter hook input priority 0; policy drop; }; " +
				"add rule inet own in iifname lo accept; add rule inet own in meta l4proto { icmp, ipv6-icmp } accept'",
			"nft delete table inet own", false},
		{"the same by iptables-nft", "iptables-nft -A INPUT -i eth0 -p tcp --dport 80 -j DROP", "iptables-nft -F",
			false},
		{"a redirection to a sidecar",
			"nft 'add table ip own; add chain ip own pre { type nat hook prerouting priority -100; }; add rule ip own pre iifname eth0 tcp dport 80 redirect to :81'",
			"nft delete table ip own", false},
		{"a queue", "tc qdisc add dev eth0 root tbf rate 10mbit burst 10k latency 50ms", "tc qdisc del dev eth0 root", true},
		{"destination NAT of its own connections", // as Docker's inside, which once had most connections reset
			"nft 'add table ip own; add chain ip own out { type nat hook output priority -100; }; add rule ip own out ip daddr 203.0.113.9 dnat to 203.0.113.8'",
			"nft delete table ip own", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			name, port := strings.ReplaceAll(c.name, " ", "-"), freePort()
			d.serve(name, []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", port)}, "sh", "-c",
				helper+` tcpserve :81 & `+helper+` tcpserve :80 addr`)
			target := fmt.Sprintf("127.0.0.1:%d", port)
			d.makeDirect(target)
			d.says("", name, "sh", "-ec", c.set)
			before := d.direct()
			for range 3 {
				out := d.command(helper, "tcpdial", target, "1s").stdout
				if reached := strings.Contains(out, "\n"+d.gateway(name)+":"); reached != c.reached {
					t.Errorf("with the rules: reached: %v: %q", reached, out)
				}
			}
			if n := d.direct() - before; n != 0 {
				t.Errorf("%d connections passed the rules by", n)
			}
			d.says("", name, "sh", "-ec", c.unset)
			d.makeDirect(target)
		})
	}
}

// TestOthersInterfacesDoNotMatter has a container with a TUN of its own that is down, as a VPN client leaves it.
func TestOthersInterfacesDoNotMatter(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	target := fmt.Sprintf("%s:%d", host4, port)
	listen(t, target, func(c *net.TCPConn) {
		fmt.Fprintln(c, "you are", c.RemoteAddr())
		c.Close()
	})
	d.says("", "box", "sh", "-ec", "mkdir -p /dev/net; ip tuntap add dev tun9 mode tun; ip tuntap add dev tap9 mode tap")
	d.isBypassed(1, func() { d.says("\nyou are", "box", helper, "tcpdial", target) })
}
