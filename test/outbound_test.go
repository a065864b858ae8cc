package test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// dual starts a daemon with a dual-stack network and one idle container "box" on it.
func dual(t *testing.T, flags ...string) *daemon {
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "dual")
	d.idle("box", append([]string{"--network", "dual"}, flags...)...)
	return d
}

func TestOutbound(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	for _, address := range []string{host4, host6} {
		target := net.JoinHostPort(address, fmt.Sprint(port))
		listen(t, target, func(c *net.TCPConn) {
			fmt.Fprintln(c, "you are", c.RemoteAddr())
			c.Close()
		})
		listenUDP(t, target)
		t.Run("TCP to "+address, func(t *testing.T) {
			d := d.in(t)
			d.says("you are "+strings.TrimSuffix(net.JoinHostPort(address, ""), ""), "box", helper, "tcpdial", target)
		})
		for _, size := range []int{1, 1472, 9000, 65507} {
			t.Run(fmt.Sprintf("UDP of %d bytes to %s", size, address), func(t *testing.T) {
				d := d.in(t)
				d.says(fmt.Sprint("same ", size), "box", helper, "udpdial", target, fmt.Sprint(size))
			})
		}
	}
	for _, address := range []string{host4, host6, peer4, peer6} {
		t.Run("ping "+address, func(t *testing.T) {
			d := d.in(t)
			d.says(" 0% packet loss", "box", "ping", "-c2", "-i0.2", "-W5", address)
		})
	}
	t.Run("big pings", func(t *testing.T) {
		d := d.in(t)
		d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "-s", "20000", peer4)
		d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "-s", "20000", peer6)
	})
	t.Run("TCP to the peer sees the host's address", func(t *testing.T) {
		d := d.in(t)
		startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
		eventually(t, func() error {
			r := d.exec("box", helper, "tcpdial", fmt.Sprintf("%s:%d", peer4, port))
			if !strings.Contains(r.stdout, "\n"+host4+":") {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	})
}

func TestDestinationsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	d := dual(t)
	for _, test := range []struct {
		name, target string
		want         []string
	}{
		{"closed port on the host", host4 + ":9", []string{"ECONNREFUSED"}},
		{"closed port on the host, IPv6", "[" + host6 + "]:9", []string{"ECONNREFUSED"}},
		{"closed port elsewhere", peer4 + ":9", []string{"ECONNREFUSED"}},
		{"unreachable host", unreachable4 + ":80", []string{"EHOSTUNREACH", "ENETUNREACH"}},
		{"unreachable host, IPv6", "[" + unreachable6 + "]:80", []string{"EHOSTUNREACH", "ENETUNREACH", "EACCES"}},
		{"no such machine on the cable", nobody4 + ":80", []string{"EHOSTUNREACH"}},
		{"black hole", blackHole4 + ":80", []string{"timeout"}},
	} {
		t.Run("TCP: "+test.name, func(t *testing.T) {
			d := d.in(t)
			out := d.ok("exec", "box", helper, "tcpdial", test.target, "6s")
			for _, want := range test.want {
				if strings.HasPrefix(out, want) {
					return
				}
			}
			t.Errorf("connecting to %s: %s, want %v", test.target, out, test.want)
		})
	}
	t.Run("UDP: closed port", func(t *testing.T) {
		d := d.in(t)
		d.says("ECONNREFUSED", "box", helper, "udpdial", peer4+":9")
		d.says("ECONNREFUSED", "box", helper, "udpdial", "["+peer6+"]:9")
	})
	t.Run("ping: black hole", func(t *testing.T) {
		d := d.in(t)
		if r := d.exec("box", "ping", "-c1", "-W1", blackHole4); !strings.Contains(r.stdout, "100% packet loss") {
			t.Errorf("%v", r)
		}
	})
}

func TestHostLoopbackIsClosedUnlessAllowed(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	listen(t, fmt.Sprintf("127.0.0.1:%d", port), echo)
	d.idle("trusted", "--network", "dual", "--host-loopback")
	target := fmt.Sprintf("host.usernet.internal:%d", port)
	d.says("ECONNREFUSED", "box", helper, "tcpdial", target)
	d.says(" 0% packet loss", "box", "ping", "-4", "-c1", "-W5", "host.usernet.internal")
	d.says("ok", "trusted", helper, "tcpdial", target)
}

// TestHostName: the name leads to what listens on the host's addresses, as its own addresses do.
func TestHostName(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	listen(t, fmt.Sprintf(":%d", port), echo)
	listenUDP(t, fmt.Sprintf("0.0.0.0:%d", port))
	// the last is another network's gateway
	for _, host := range []string{"host.docker.internal", d.gateway("box"), "172.17.0.1"} {
		target := fmt.Sprintf("%s:%d", host, port)
		d.says("ok", "box", helper, "tcpdial", target)
		d.says("same 10", "box", helper, "udpdial", target, "10")
	}
	if r := d.exec("box", "ping", "-c1", "-W1", "172.17.0.1"); r.code == 0 {
		t.Errorf("another network's gateway answers: %v", r)
	}
	d.says("ENETUNREACH", "box", helper, "tcpdial", fmt.Sprintf("172.17.0.9:%d", port)) // one of another network
}

func TestPingSocketsForbidden(t *testing.T) {
	t.Parallel()
	// In a network namespace of its own, whose ping_group_range is the kernel's default: nobody.
	holder := exec.Command("unshare", "--user", "--net", fmt.Sprint("--map-user=", userID),
		fmt.Sprint("--map-group=", userID),
		"sh", "-c", "echo ready; exec sleep 1000000")
	startAndWaitFor(t, holder, "ready\n")
	d := newDaemon(t)
	d.prefix = []string{"nsenter", "--preserve-credentials", "--user", "--net",
		fmt.Sprint("--target=", holder.Process.Pid)}
	d.start()
	d.idle("box")
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "172.17.0.1")
	if r := d.exec("box", "ping", "-c1", "-W2", peer4); r.code == 0 {
		t.Errorf("ping left without a ping socket: %v", r)
	}
	if n := strings.Count(d.logText(), "ping_group_range"); n != 1 {
		t.Errorf("the log names ping_group_range %d times, not once", n)
	}
	if out := d.ok("info"); !strings.Contains(out, "ping_group_range") {
		t.Errorf("info does not name ping_group_range: %s", out)
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	// The server answers only after the client has ended its half, and the other way round.
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d digest", helper, port))
	eventually(t, func() error {
		r := d.exec("box", helper, "tcpsend", fmt.Sprintf("%s:%d", peer4, port), "100000")
		if !strings.Contains(r.stdout, "same 100000") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	published := freePort()
	d.serve("server", []string{"--network", "dual", "-p", fmt.Sprintf("%d:80", published)}, helper, "tcpserve", ":80",
		"digest")
	if r := d.command(helper, "tcpsend", fmt.Sprintf("%s:%d", host4, published), "100000"); !strings.Contains(r.stdout,
		"same 100000") {
		t.Errorf("through a published port: %v", r)
	}
	d.says("same 100000", "box", helper, "tcpsend", "server:80", "100000")
}

func TestResetStaysReset(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, port), func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
		c.Close()
	})
	r := d.commandInput("x", usernet, "exec", "-i", "box", helper, "tcphold", fmt.Sprintf("%s:%d", host4, port))
	if !strings.Contains(r.stdout, "ECONNRESET") {
		t.Errorf("the host's reset reached the container as: %v", r)
	}
}

// TestUDPMappingIsEndpointIndependent is RFC 4787 REQ-1: STUN and everything built on it need it.
func TestUDPMappingIsEndpointIndependent(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	startAtPeer(t, fmt.Sprintf("%s udpserve :%d addr", helper, port))
	startAtPeer(t, fmt.Sprintf("%s udpserve :%d addr", helper, port+1))
	eventually(t, func() error {
		r := d.exec("box", helper, "udpmap", fmt.Sprintf("%s:%d", peer4, port), fmt.Sprintf("%s:%d", peer4, port+1))
		seen := strings.Fields(r.stdout)
		if len(seen) != 2 || seen[0] != seen[1] || !strings.HasPrefix(seen[0], host4+":") {
			return fmt.Errorf("two servers see one socket as: %v", r)
		}
		return nil
	})
}

func TestSuperFramesAndSmallMTU(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d digest", helper, port))
	for _, mtu := range []string{"1280", "9000", "65520"} {
		t.Run("MTU "+mtu, func(t *testing.T) {
			d := d.in(t)
			network := "mtu" + mtu
			d.ok("network", "create", "-o", "com.docker.network.driver.mtu="+mtu, network)
			d.idle("client"+mtu, "--network", network)
			d.serve("server"+mtu, []string{"--network", network}, helper, "tcpserve", ":80", "digest")
			d.says("mtu "+mtu, "client"+mtu, "ip", "link", "show", "eth0")
			for _, target := range []string{fmt.Sprintf("%s:%d", peer4, port), "server" + mtu + ":80"} {
				d.says("same 3000000", "client"+mtu, helper, "tcpsend", target, "3000000")
			}
		})
	}
}
