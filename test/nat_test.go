package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
)

// beyond4 and beyond6 are behind the peer, which forwards to where nobody answers; on the way a packet's time is
// exceeded.
const (
	beyond4 = "198.18.0.9" // RFC 2544: for benchmarks, so nobody's
	beyond6 = "2001:db8:2::9"
)

// routeBeyond gives the peer routes to them, until the test ends.
func routeBeyond(t *testing.T) {
	atPeer(t, "ip route add 198.18.0.0/24 dev lan0; ip -6 route add 2001:db8:2::/64 dev lan0")
	t.Cleanup(func() { atPeer(t, "ip route del 198.18.0.0/24 dev lan0; ip -6 route del 2001:db8:2::/64 dev lan0") })
}

func TestTraceroute(t *testing.T) {
	routeBeyond(t)
	d := dual(t)
	for _, test := range []struct {
		name, target, router string
		flags                []string
	}{
		{"UDP", beyond4, peer4, nil},
		{"ICMP", beyond4, peer4, []string{"-I"}},
		{"UDP, IPv6", beyond6, peer6, []string{"-6"}},
		{"ICMP, IPv6", beyond6, peer6, []string{"-6", "-I"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := d.in(t)
			out := d.ok(append(append([]string{"exec", "box", "traceroute", "-n", "-q2", "-w2", "-m2"}, test.flags...),
				test.target)...)
			gateway := d.gateway("box")
			if strings.Contains(test.name, "IPv6") {
				gateway = strings.Fields(d.field(`default via (\S+)`, "box", "ip", "-6", "route"))[0]
			}
			first := regexp.MustCompile(`(?m)^ ?1  ` + regexp.QuoteMeta(gateway) + " ")
			second := regexp.MustCompile(`(?m)^ ?2 .*` + regexp.QuoteMeta(test.router) + " ")
			if !first.MatchString(out) || !second.MatchString(out) {
				t.Errorf("want the gateway %s, then the router %s:\n%s", gateway, test.router, out)
			}
		})
	}
}

func TestPathMTU(t *testing.T) {
	// The host knows of a path that is narrower than the network.
	const far = "198.18.1.1"
	atPeer(t, "ip addr add "+far+"/32 dev lo")
	asRoot(t, "ip route add 198.18.1.0/24 via "+peer4+" mtu 1300")
	t.Cleanup(func() {
		atPeer(t, "ip addr del "+far+"/32 dev lo")
		asRoot(t, "ip route del 198.18.1.0/24")
	})
	d := dual(t)
	port := freePort()
	startAtPeer(t, fmt.Sprintf("%s udpserve %s:%d", helper, far, port))
	d.says("same 1200", "box", helper, "udpdial", fmt.Sprintf("%s:%d", far, port), "1200")
	if r := d.exec("box", "ping", "-c2", "-i0.2", "-W2", "-M", "do", "-s", "1400", far); !strings.Contains(r.stdout+
		r.stderr, "mtu = 1300") && !strings.Contains(r.stdout+r.stderr, "mtu=1300") {
		t.Errorf("ping hears nothing of the path's MTU: %v", r)
	}
	// The container's kernel learns it, and fragments; the server answers in fragments as well.
	d.says("same 1400", "box", helper, "udpdial", fmt.Sprintf("%s:%d", far, port), "1400")
	if out := d.ok("exec", "box", "ip", "route", "get", far); !strings.Contains(out, "mtu 1300") {
		t.Errorf("the container does not know the path's MTU: %s", out)
	}
}

func TestOutboundAddress(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--outbound-addr", resolver, "second")
	d.idle("box", "--network", "second")
	port := freePort()
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
	startAtPeer(t, fmt.Sprintf("%s udpserve :%d addr", helper, port))
	eventually(t, func() error {
		for _, kind := range []string{"tcpdial", "udpdial"} {
			if r := d.exec("box", helper, kind, fmt.Sprintf("%s:%d", peer4, port)); !sourceIs(r.stdout, resolver) {
				return fmt.Errorf("%s comes from elsewhere: %v", kind, r)
			}
		}
		return nil
	})
	d.ok("network", "create", "--outbound-interface", "lan0", "cable")
	d.ok("network", "create", "--outbound-interface", "lo", "nowhere")
	d.idle("cabled", "--network", "cable")
	d.idle("lost", "--network", "nowhere")
	d.says("ok", "cabled", helper, "tcpdial", fmt.Sprintf("%s:%d", peer4, port))
	if r := d.exec("lost", helper, "tcpdial", fmt.Sprintf("%s:%d", peer4, port), "3s"); strings.HasPrefix(r.stdout,
		"ok") {
		t.Errorf("a connection left by another interface: %v", r)
	}
	d.fails("address of the host", "network", "create", "--outbound-addr", "::1", "third")
}

func TestFlows(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, port), echo)
	listenUDP(t, fmt.Sprintf("%s:%d", host4, port))
	held := d.keep(usernet, "exec", "-i", "box", helper, "tcphold", fmt.Sprintf("%s:%d", host4, port), "stdin")
	fmt.Fprint(held, "12345")
	d.says("same 100", "box", helper, "udpdial", fmt.Sprintf("%s:%d", host4, port), "100")
	type flow struct {
		Container, Proto, Direction, Inside, Outside, State string
		HostSide                                            string `json:"host_side"`
		In                                                  uint64 `json:"bytes_in"`
		Out                                                 uint64 `json:"bytes_out"`
		PacketsIn                                           uint64 `json:"packets_in"`
	}
	target := fmt.Sprintf("%s:%d", host4, port)
	eventually(t, func() error {
		var list []flow
		if err := json.Unmarshal([]byte(d.ok("flows", "--json", "box")), &list); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, f := range list {
			switch {
			case f.Container != "box" || f.Direction != "out" || f.Outside != target ||
				!strings.HasPrefix(f.Inside, d.address("box")+":") || !strings.HasPrefix(f.HostSide, ""):
			case f.Proto == "tcp" && f.State == "established" && f.In == 5 && f.Out == 5,
				f.Proto == "udp" && f.In == 100 && f.Out == 100 && f.PacketsIn == 1:
				seen[f.Proto] = true
			}
		}
		if !seen["tcp"] || !seen["udp"] {
			return fmt.Errorf("flows do not show what happened: %+v", list)
		}
		return nil
	})
	if out := d.ok("flows"); !strings.Contains(out, "CONTAINER") || !strings.Contains(out, target) {
		t.Errorf("flows prints %s", out)
	}
	held.Close()
	eventually(t, func() error {
		if out := d.ok("flows"); strings.Contains(out, "tcp") {
			return fmt.Errorf("the connection is still listed: %s", out)
		}
		return nil
	})
}

func TestLimitsTouchOnlyTheirContainer(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "--limit-tcp", "2", "--limit-udp", "2")
	d.idle("greedy")
	d.idle("modest")
	port := freePort()
	target := fmt.Sprintf("%s:%d", host4, port)
	listen(t, target, echo)
	listen(t, fmt.Sprintf("%s:%d", host4, port+1), func(c *net.TCPConn) { c.Close() })
	listenUDP(t, target)
	for range 2 {
		held := d.keep(usernet, "exec", "-i", "greedy", helper, "tcphold", target, "stdin")
		defer held.Close()
	}
	eventually(t, func() error {
		if n := strings.Count(d.ok("flows", "greedy"), "tcp"); n != 2 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	d.says("ECONNREFUSED", "greedy", helper, "tcpdial", target)
	d.says("ok", "modest", helper, "tcpdial", fmt.Sprintf("%s:%d", host4, port+1))
	for range 2 {
		d.says("same 10", "greedy", helper, "udpdial", target, "10")
	}
	d.says("same 10", "greedy", helper, "udpdial", target, "10") // an older one is given up for it
	d.says("same 10", "modest", helper, "udpdial", target, "10")
	for _, name := range []string{"tcp_limit", "udp_limit"} {
		if d.counter(name) == 0 {
			t.Errorf("%s counts nothing", name)
		}
	}
}

func TestHostNames(t *testing.T) {
	t.Parallel()
	d := dual(t)
	gateway := d.gateway("box")
	for _, name := range []string{"host.docker.internal", "host.containers.internal", "host.usernet.internal"} {
		d.says(gateway, "box", "getent", "ahostsv4", name)
	}
	d.idle("added", "--add-host", "db:192.0.2.7", "--add-host", "gw:host-gateway")
	d.says("192.0.2.7", "added", "getent", "hosts", "db")
	d.says(d.gateway("added"), "added", "getent", "hosts", "gw")
}

// listeningFile is a socket that listens, as a program is started with it. A service manager would have made it.
func listeningFile(address string) (*os.File, error) {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// TestInheritedSocket is systemd's socket activation (sd_listen_fds(3)) for a port that the user may not bind.
func TestInheritedSocket(t *testing.T) {
	const port = 40
	asRoot(t, fmt.Sprintf("echo %d > /proc/sys/net/ipv4/ip_unprivileged_port_start", port))
	file, err := listeningFile(fmt.Sprintf("0.0.0.0:%d", port))
	asRoot(t, "echo 53 > /proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := newDaemon(t)
	d.prefix = []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$@"`, "sh"}
	d.files = []*os.File{file}
	d.start()
	d.serve("web", []string{"-p", fmt.Sprintf("0.0.0.0:%d:80", port)}, helper, "tcpserve", ":80", "addr")
	for range 2 { // the container may come and go
		if out := d.command(helper, "tcpdial", fmt.Sprintf("127.0.0.1:%d", port)).stdout; !strings.HasPrefix(out,
			"ok") {
			t.Errorf("the inherited port does not answer: %s", out)
		}
		d.ok("port", "rm", "web", fmt.Sprintf("%d:80", port))
		d.ok("port", "add", "web", "-p", fmt.Sprintf("0.0.0.0:%d:80", port))
	}
	d.fails("ip_unprivileged_port_start", "port", "add", "web", "-p", "41:80")
}

// TestSTUN is how peer-to-peer programs find their address (RFC 8489): two servers have to see the same.
func TestSTUN(t *testing.T) {
	t.Parallel()
	d := dual(t)
	port := freePort()
	startAtPeer(t, fmt.Sprintf("%s stunserve %s:%d", helper, peer4, port))
	startAtPeer(t, fmt.Sprintf("%s stunserve %s:%d", helper, peer4, port+1))
	eventually(t, func() error {
		r := d.exec("box", helper, "stun", fmt.Sprintf("%s:%d", peer4, port), fmt.Sprintf("%s:%d", peer4, port+1))
		seen := strings.Fields(r.stdout)
		if r.code != 0 || len(seen) != 2 || seen[0] != seen[1] || !strings.HasPrefix(seen[0], host4+":") {
			return fmt.Errorf("two STUN servers see one socket as: %v", r)
		}
		return nil
	})
}
