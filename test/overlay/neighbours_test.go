package overlay

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// digestServer starts a server in a namespace that sends back the digest of what it gets, for the length of a test.
func digestServer(t testing.TB, ns, address string) {
	t.Helper()
	server := exec.Command("nsenter", "--net="+ns, helper, "tcpserve", address, "digest")
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	line := make([]byte, len("listening\n"))
	if _, err := out.Read(line); err != nil || string(line) != "listening\n" {
		t.Fatalf("the server at %s: %q, %v", address, line, err)
	}
}

// streams sends bytes both ways between a container and a neighbour's address, and compares them.
func (h *host) streams(container, address, ns, neighbour string) {
	h.t.Helper()
	const size = "3000000"
	if r := h.exec(container, helper, "tcpsend", neighbour+":80", size); !strings.Contains(r.stdout, "same "+size) {
		h.t.Errorf("from %s to %s: %v", container, neighbour, r)
	}
	if out := rootIn(h.t, ns, helper, "tcpsend", address+":80", size); !strings.Contains(out, "same "+size) {
		h.t.Errorf("from %s to %s: %s", neighbour, address, out)
	}
}

// reaches waits until a ping from a namespace is answered.
func reaches(t testing.TB, ns, address string) {
	t.Helper()
	eventually(t, func() error {
		out, err := exec.Command("nsenter", "--net="+ns, "ping", "-c1", "-W2", address).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping from %s to %s: %v: %s", ns, address, err, out)
		}
		return nil
	})
}

// TestVXLANDeviceOfAnother joins two daemons that are in no cluster and a kernel's VXLAN device by a network of the
// driver vxlan.
func TestVXLANDeviceOfAnother(t *testing.T) {
	a, b := newHost(t, 1), newHost(t, 2)
	a.start()
	b.start()
	const kernel = "/run/netns/xh-h3"
	rootIn(t, kernel, "ip", "link", "add", "vx42", "mtu", "1450", "type", "vxlan", "id", "42", "local", "192.0.2.3",
		"dstport", "4789")
	t.Cleanup(func() { rootIn(t, kernel, "ip", "link", "del", "vx42") })
	for _, peer := range []string{"192.0.2.1", "192.0.2.2"} {
		rootIn(t, kernel, "bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx42", "dst", peer)
	}
	rootIn(t, kernel, "ip", "addr", "add", "10.42.0.193/24", "dev", "vx42")
	rootIn(t, kernel, "ip", "addr", "add", "fd42::c1/64", "dev", "vx42", "nodad")
	rootIn(t, kernel, "ip", "link", "set", "vx42", "up")
	digestServer(t, kernel, "10.42.0.193:80")

	create := func(h *host, span, peers string) {
		h.docker("network", "create", "-d", "vxlan", "--subnet", "10.42.0.0/24", "--ip-range", span, "--gateway",
			"10.42.0.254",
			"--ipv6", "--subnet", "fd42::/64", "-o", "usernet.vni=42", "-o", "usernet.peers="+peers, "v42")
	}
	create(a, "10.42.0.0/26", "192.0.2.2,192.0.2.3")
	create(b, "10.42.0.64/26", "192.0.2.1,192.0.2.3")
	a.serve("one", []string{"--network", "v42", "--ip", "10.42.0.10", "--ip6", "fd42::10"}, helper, "tcpserve", ":80",
		"digest")
	b.serve("two", []string{"--network", "v42", "--ip", "10.42.0.70", "--ip6", "fd42::70"}, helper, "tcpserve", ":80",
		"digest")
	all := func() {
		t.Helper()
		for _, address := range []string{"10.42.0.70", "10.42.0.193", "fd42::70", "fd42::c1"} {
			a.pings("one", address)
		}
		for _, address := range []string{"10.42.0.10", "10.42.0.193", "fd42::10"} {
			b.pings("two", address)
		}
		reaches(t, kernel, "10.42.0.10")
		reaches(t, kernel, "fd42::70")
		a.streams("one", "10.42.0.10", kernel, "10.42.0.193")
		b.streams("two", "10.42.0.70", kernel, "10.42.0.193")
	}
	all()
	// What its TCP sends goes to other machines: how, is this machine's choice.
	const congestion = "/proc/sys/net/ipv4/tcp_congestion_control"
	want := strings.TrimSpace(rootIn(t, a.ns(), "cat", congestion))
	if got := strings.TrimSpace(a.ok("exec", "one", "cat", congestion)); got != want {
		t.Errorf("a container has the congestion control %q, want %q", got, want)
	}
	for _, address := range []string{"10.42.0.70", "10.42.0.193", "fd42::c1"} {
		if r := a.try("trace", "--timeout", "20s", "one", address); r.code != 0 || !strings.Contains(r.stdout,
			"yes: it got through") {
			t.Errorf("trace to %s behind a peer: %v", address, r)
		}
	}
	if out := a.ok("network", "inspect", "--verbose", "v42"); !strings.Contains(out, `"Learned"`) {
		t.Errorf("no MACs behind the peers are shown: %s", out)
	}
	// What nobody is a peer of is not taken: host 4 is none.
	rootIn(t, "/run/netns/xh-h4", "bash", "-c", "printf '\\x08\\0\\0\\0\\0\\0\\x2a\\0%064d' 0 >/dev/udp/192.0.2.1/4789")
	eventually(t, func() error {
		if out := a.ok("network", "inspect", "--verbose", "v42"); !strings.Contains(out, `"unknown-peer": 1`) {
			return fmt.Errorf("a stranger's datagram is not counted: %s", out)
		}
		return nil
	})

	// The daemon is killed: its container is on the network again.
	a.stop(syscall.SIGKILL)
	a.again()
	all()

	// The port and the number are the network's for as long as it is there.
	a.fails("in use by network v42", "network", "create", "-d", "vxlan", "-o", "usernet.vni=42", "-o",
		"usernet.peers=192.0.2.4", "again")
	a.fails("peer 192.0.2.2 has port 4789 for network v42", "network", "create", "-d", "vxlan", "-o", "usernet.vni=43",
		"-o", "usernet.peers=192.0.2.2:4790", "again")
	a.ok("network", "create", "-d", "vxlan", "-o", "usernet.vni=42", "-o", "usernet.port=4790", "-o",
		"usernet.peers=192.0.2.4", "again")
	a.ok("network", "rm", "again")
	a.ok("rm", "-f", "one")
	a.ok("network", "rm", "v42")
	eventually(t, func() error {
		if out := rootIn(t, a.ns(), "ss", "-Hlun", "sport", "=", "4789"); out != "" {
			return fmt.Errorf("the port is open with no network: %s", out)
		}
		return nil
	})
}

// TestVXLANNetworksThatCannotBe: each is refused with what to do, and leaves nothing.
func TestVXLANNetworksThatCannotBe(t *testing.T) {
	h := newHost(t, 1)
	h.start()
	for _, test := range []struct {
		words string
		args  []string
	}{
		{"-o usernet.vni=N", []string{"-o", "usernet.peers=192.0.2.2"}},
		{"-o usernet.peers=", []string{"-o", "usernet.vni=1"}},
		{"is no peer", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=there"}},
		{"is in use between usernet's hosts", []string{"-o", "usernet.vni=16777215", "-o", "usernet.peers=192.0.2.2"}},
		{"GRE needs IP protocol 47", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=192.0.2.2", "-o",
			"usernet.encap=gre"}},
		{"is no encapsulation", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=192.0.2.2", "-o",
			"usernet.encap=stt"}},
		{"is no peer", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=0.0.0.0"}},
		{"is no peer", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=192.0.2.2,255.255.255.255"}},
		{"is no peer", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=[ff02::1]:4789"}},
		{"is this host itself", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=192.0.2.2,192.0.2.1"}},
		{"is this host itself", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=127.0.0.1"}},
		{"is this host itself", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=[2001:db8::1]:4789"}},
		{"not below net.ipv4.ip_unprivileged_port_start", []string{"-o", "usernet.vni=1", "-o",
			"usernet.peers=192.0.2.2", "-o", "usernet.port=80"}},
		{"unknown option encrypted", []string{"-o", "usernet.vni=1", "-o", "usernet.peers=192.0.2.2", "-o",
			"encrypted"}},
	} {
		h.fails(test.words, append(append([]string{"network", "create", "-d", "vxlan"}, test.args...), "n")...)
	}
	taken := exec.Command("nsenter", "--net="+h.ns(), helper, "udpserve", "0.0.0.0:4789")
	if err := taken.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = taken.Process.Kill()
		_ = taken.Wait()
	})
	eventually(t, func() error {
		if rootIn(t, h.ns(), "ss", "-Hlun", "sport", "=", "4789") == "" {
			return fmt.Errorf("nobody has the port yet")
		}
		return nil
	})
	h.fails("-o usernet.port=", "network", "create", "-d", "vxlan", "-o", "usernet.vni=1", "-o",
		"usernet.peers=192.0.2.2", "n")
	if out := h.ok("network", "ls", "-q", "-f", "driver=vxlan"); out != "" {
		t.Errorf("a network that was refused is there: %s", out)
	}
}

// An openVSwitch is one in a namespace of its own on the hosts' Ethernet, at 192.0.2.5, with the userspace datapath.
type openVSwitch struct {
	t   testing.TB
	dir string
}

const ovsNS = "/run/netns/xh-ovs"

// newOpenVSwitch starts the database and the switch, for the length of a test. br-int has the address 10.43.0.193.
func newOpenVSwitch(t testing.TB) *openVSwitch {
	t.Helper()
	o := &openVSwitch{t: t, dir: t.TempDir()}
	const sw = "/run/netns/xh-sw"
	addNamespace(t, "xh-ovs", sw, "e5")
	rootIn(t, sw, "ip", "link", "add", "e5", "type", "veth", "peer", "name", "eth0", "netns", "xh-ovs")
	rootIn(t, sw, "ip", "link", "set", "e5", "master", "br0", "up")
	rootIn(t, ovsNS, "ip", "link", "set", "lo", "up")
	rootIn(t, ovsNS, "ip", "link", "set", "eth0", "up")
	// Open vSwitch reads whole packets, and a veth device leaves checksums undone.
	rootIn(t, "/run/netns/xh-h1", "ethtool", "-K", "eth0", "tx", "off")
	t.Cleanup(func() { rootIn(t, "/run/netns/xh-h1", "ethtool", "-K", "eth0", "tx", "on") })
	rootIn(t, ovsNS, "ethtool", "-K", "eth0", "tx", "off")
	database := filepath.Join(o.dir, "conf.db")
	rootIn(t, ovsNS, "ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
	o.serve("ovsdb-server", database, "--remote=punix:"+o.socket(), "--unixctl="+filepath.Join(o.dir, "db.ctl"))
	eventually(t, func() error {
		out, err := exec.Command("ovs-vsctl", "--db=unix:"+o.socket(), "--no-wait", "--timeout=5",
			"init").CombinedOutput()
		if err != nil {
			return fmt.Errorf("the database of Open vSwitch: %v: %s", err, out)
		}
		return nil
	})
	o.serve("ovs-vswitchd", "unix:"+o.socket(), "--unixctl="+filepath.Join(o.dir, "sw.ctl"))
	o.configure("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev", "--", "add-port", "br-phy",
		"eth0")
	rootIn(t, ovsNS, "ip", "addr", "add", "192.0.2.5/24", "dev", "br-phy")
	rootIn(t, ovsNS, "ip", "link", "set", "br-phy", "up")
	o.configure("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev")
	rootIn(t, ovsNS, "ip", "addr", "add", "10.43.0.193/24", "dev", "br-int")
	rootIn(t, ovsNS, "ip", "link", "set", "br-int", "mtu", "1450", "up")
	reaches(t, ovsNS, "192.0.2.1")
	return o
}

func (o *openVSwitch) socket() string { return filepath.Join(o.dir, "db.sock") }

func (o *openVSwitch) serve(name string, args ...string) {
	o.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=" + ovsNS, name}, args...)...)
	cmd.Env = append(cmd.Environ(), "OVS_RUNDIR="+o.dir)
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
	})
}

// configure changes the database and waits until the switch has done it.
func (o *openVSwitch) configure(args ...string) {
	o.t.Helper()
	rootIn(o.t, ovsNS, append([]string{"ovs-vsctl", "--db=unix:" + o.socket(), "--timeout=60"}, args...)...)
}

// TestOpenVSwitch has a container and Open vSwitch on one network, by VXLAN and by Geneve.
func TestOpenVSwitch(t *testing.T) {
	h := newHost(t, 1)
	h.start()
	o := newOpenVSwitch(t)
	digestServer(t, ovsNS, "10.43.0.193:80")
	for _, encap := range []string{"vxlan", "geneve"} {
		t.Run(encap, func(t *testing.T) {
			h.docker("network", "create", "-d", "vxlan", "--subnet", "10.43.0.0/24", "--ip-range", "10.43.0.0/25",
				"--gateway", "10.43.0.254",
				"-o", "usernet.encap="+encap, "-o", "usernet.vni=77", "-o", "usernet.peers=192.0.2.5", "lan")
			o.configure("add-port", "br-int", "t0", "--", "set", "interface", "t0", "type="+encap,
				"options:remote_ip=192.0.2.1", "options:key=77")
			h.serve("box", []string{"--network", "lan", "--ip", "10.43.0.10"}, helper, "tcpserve", ":80", "digest")
			h.pings("box", "10.43.0.193")
			reaches(t, ovsNS, "10.43.0.10")
			h.streams("box", "10.43.0.10", ovsNS, "10.43.0.193")
			h.ok("rm", "-f", "box")
			h.ok("network", "rm", "lan")
			o.configure("del-port", "br-int", "t0")
			rootIn(t, ovsNS, "ip", "neigh", "flush", "all") // the next container has the same addresses
		})
	}
}
