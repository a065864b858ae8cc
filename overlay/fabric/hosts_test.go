package fabric

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

// hostEnv has a hostConfig: the test's process is then a host of its own.
const hostEnv = "USERNET_FABRIC_TEST_HOST"

// hostConfig is what a host process is to be. Its container has the address 10.9.0.<number>.
type hostConfig struct {
	Number, Peer byte
	Host, Other  overlay.HostID
	Addr, Seen   netip.Addr // of the other; Seen may be invalid
	Key, Theirs  string     // private keys in hexadecimal; "": plain
	MTU          int        // inside
	TCP          bool       // the other one takes connections
}

func (c hostConfig) sealed() bool { return c.Key != "" }

// hostProcess is a host in a process and a network namespace of its own, as the test that started it sees it.
type hostProcess struct {
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Reader
	host      *netns
	container *netns
}

// joinNetns is a thread in a namespace that is there already.
func joinNetns(t testing.TB, path string) *netns {
	t.Helper()
	n := &netns{calls: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlocked
		for f := range n.calls {
			f()
		}
	}()
	t.Cleanup(func() { close(n.calls) })
	must(t, n.in(func() error {
		n.tid = unix.Gettid()
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	}))
	return n
}

// startHosts starts two hosts with a veth pair between them, 10.99.0.1 and 10.99.0.2, and waits until they reach each
// other.
func startHosts(t testing.TB, mtu int, isSealed bool) [2]*hostProcess {
	t.Helper()
	there := [2]netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.1")}
	return startHostsOver(t, mtu, isSealed, there, [2]netip.Addr{}, func(pair [2]*hostProcess) {
		var own *netns
		own.ip(t, fmt.Sprintf("link add h1 mtu %d netns %d type veth peer name h2 mtu %d netns %d",
			mtu, pair[0].cmd.Process.Pid, mtu, pair[1].cmd.Process.Pid))
		for i, p := range pair {
			p.host.ip(t, fmt.Sprintf("addr add 10.99.0.%d/24 dev h%d", i+1, i+1), fmt.Sprintf("link set h%d up", i+1))
		}
	})
}

// startHostsOver starts two hosts that connect has joined, and waits until they reach each other. there and seen are
// what each is told of the other's address.
func startHostsOver(t testing.TB, mtu int, isSealed bool, there, seen [2]netip.Addr,
	connect func([2]*hostProcess)) [2]*hostProcess {
	t.Helper()
	inner := InnerMTU(mtu, false, isSealed)
	a := hostConfig{Number: 1, Peer: 2, Host: hostA, Other: hostB, MTU: inner, Addr: there[0], Seen: seen[0]}
	b := hostConfig{Number: 2, Peer: 1, Host: hostB, Other: hostA, MTU: inner, Addr: there[1], Seen: seen[1]}
	if isSealed {
		ka, kb := seal.NewKey(), seal.NewKey()
		a.Key, a.Theirs = hex.EncodeToString(ka[:]), hex.EncodeToString(kb[:])
		b.Key, b.Theirs = a.Theirs, a.Key
		a.TCP, b.TCP = true, true
	}
	pair := [2]*hostProcess{startHost(t, a), startHost(t, b)}
	for _, p := range pair {
		// before its main thread may go elsewhere
		p.host = joinNetns(t, fmt.Sprintf("/proc/%d/ns/net", p.cmd.Process.Pid))
	}
	connect(pair)
	for _, p := range pair {
		p.say(t, "go")
	}
	for _, p := range pair {
		p.container = joinNetns(t, p.hear(t))
	}
	return pair
}

func startHost(t testing.TB, c hostConfig) *hostProcess {
	t.Helper()
	b, err := json.Marshal(c)
	must(t, err)
	p := &hostProcess{cmd: exec.Command("/proc/self/exe", "-test.run=^TestHostProcess$", "-test.v=false")}
	p.cmd.Env = append(os.Environ(), hostEnv+"="+string(b))
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	p.in, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	p.out = bufio.NewReader(out)
	must(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.in.Close()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *hostProcess) say(t testing.TB, line string) {
	t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	must(t, err)
}

func (p *hostProcess) hear(t testing.TB) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(line)
}

// TestHostProcess is a host, in a process that another test has started.
func TestHostProcess(t *testing.T) {
	text := os.Getenv(hostEnv)
	if text == "" {
		return
	}
	var c hostConfig
	must(t, json.Unmarshal([]byte(text), &c))
	in := bufio.NewScanner(os.Stdin)
	in.Scan() // "go"
	(*netns)(nil).ip(t, "link set lo up")
	cfg := Config{Host: c.Host, Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), DefaultPort)}
	peer := Peer{Host: c.Other, Addrs: []netip.AddrPort{netip.AddrPortFrom(c.Addr, DefaultPort)},
		PartialChecksums: true}
	if c.Seen.IsValid() {
		peer.Seen = []netip.AddrPort{netip.AddrPortFrom(c.Seen, DefaultPort)}
	}
	if c.TCP {
		peer.TCP = peer.Addrs
	}
	if c.sealed() {
		for _, k := range []struct {
			text string
			to   func(seal.PrivateKey)
		}{{c.Key, func(k seal.PrivateKey) { cfg.Key = k }},
			{c.Theirs, func(k seal.PrivateKey) { peer.Key = k.Public() }}} {
			b, err := hex.DecodeString(k.text)
			must(t, err)
			k.to(seal.PrivateKey(b))
		}
	}
	f, err := New(cfg)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	must(t, f.SetPeers([]Peer{peer}))
	sw := vswitch.New(vswitch.Config{Name: "ov", MTU: c.MTU})
	l := plug(t, f, sw, NetworkConfig{Name: "ov", VNI: testVNI, MTU: c.MTU, Sealed: c.sealed()})
	macs, err := l.SetEntries([]Entry{{
		MAC: overlay.MAC{2, 0x42, 10, 9, 0, c.Peer},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, c.Peer}),
			netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: c.Peer})},
		Host: c.Other,
	}})
	must(t, err)
	waitFor(t, "port", func() bool { return l.port.Load() != nil })
	sw.SetStatic(l.port.Load(), macs)
	s := newStation(t, sw, c.Number, c.MTU)
	waitFor(t, "answer of the other host", func() bool { return f.Peers()[0].Alive })
	fmt.Printf("/proc/%d/task/%d/ns/net\n", os.Getpid(), s.tid)
	for in.Scan() {
		switch in.Text() {
		case "cpu":
			var u unix.Rusage
			must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
			fmt.Println(u.Utime.Nano() + u.Stime.Nano())
		case "state":
			fmt.Printf("%+v %v %v\n", f.Peers()[0], l.Drops(), f.Drops())
		}
	}
}

func (p *hostProcess) cpu(t testing.TB) time.Duration {
	t.Helper()
	p.say(t, "cpu")
	var n int64
	_, err := fmt.Sscan(p.hear(t), &n)
	must(t, err)
	return time.Duration(n)
}

func TestTwoHosts(t *testing.T) {
	for _, isSealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", isSealed), func(t *testing.T) {
			h := startHosts(t, 1500, isSealed)
			for _, a := range []string{"10.9.0.2", "fd09::2"} {
				stream(t, h[0].container, h[1].container, netip.MustParseAddr(a), 8<<20)
			}
			burstOfDatagrams(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"))
			h[0].say(t, "state")
			t.Log(h[0].hear(t))
		})
	}
}

// TestTwoHostsBehindNAT: each is behind a router that lets nothing in but answers. They know each other's address
// behind the router, which leads nowhere, and the one that a third host would have seen.
func TestTwoHostsBehindNAT(t *testing.T) {
	var routers [2]*netns
	connect := func(pair [2]*hostProcess) {
		routers = [2]*netns{newNetns(t), newNetns(t)}
		var own *netns
		own.ip(t, fmt.Sprintf("link add out netns %s type veth peer name out netns %s", routers[0].pid(),
			routers[1].pid()))
		for i, r := range routers {
			own.ip(t, fmt.Sprintf("link add eth0 netns %d type veth peer name in netns %s", pair[i].cmd.Process.Pid,
				r.pid()))
			pair[i].host.ip(t, fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", i+1), "link set eth0 up",
				fmt.Sprintf("route add default via 10.%d.0.1", i+1))
			r.ip(t, fmt.Sprintf("addr add 10.%d.0.1/24 dev in", i+1),
				fmt.Sprintf("addr add 10.99.0.%d/24 dev out", i+1), "link set in up", "link set out up")
			r.run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
			r.run(t, "nft", `table inet t {
					chain post { type nat hook postrouting priority 100; oifname "out" masquerade; }
					chain input { type filter hook input priority 0; iifname "out" ct state new drop; }
					chain forward { type filter hook forward priority 0; iifname "out" ct state new drop; }
				}`)
		}
	}
	there := [2]netip.Addr{netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("10.1.0.2")}
	seen := [2]netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.1")}
	h := startHostsOver(t, 1500, true, there, seen, connect)
	stream(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"), 1<<20)
	for _, p := range h {
		p.say(t, "state")
		if state := p.hear(t); !strings.Contains(state, "Path:punched") {
			t.Error(state)
		}
	}
}

// TestAPathThatTells: a router on the way has a smaller MTU, and says so (ICMP).
func TestAPathThatTells(t *testing.T) {
	var own *netns
	router, there := newNetns(t), newNetns(t)
	veth(t, own, router, "u0", "r0", 1500)
	veth(t, router, there, "r1", "u1", 1320)
	t.Cleanup(func() { own.ip(t, "link del u0") })
	own.ip(t, "addr add 10.98.0.1/24 dev u0", "route add 10.99.0.0/24 via 10.98.0.254")
	router.ip(t, "addr add 10.98.0.254/24 dev r0", "addr add 10.99.0.254/24 dev r1")
	router.run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	there.ip(t, "addr add 10.99.0.2/24 dev u1", "route add 10.98.0.0/24 via 10.99.0.254",
		fmt.Sprintf("link add vx0 mtu 1450 type vxlan id %d local 10.99.0.2 remote 10.98.0.1 dstport %d", testVNI, DefaultPort),
		"addr add 10.9.0.99/24 dev vx0", "link set vx0 up")
	f, err := New(Config{Host: hostA, Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), DefaultPort)})
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	sw := vswitch.New(vswitch.Config{Name: "ov", MTU: 1450})
	t.Cleanup(func() { _ = sw.Close() })
	plug(t, f, sw, NetworkConfig{Name: "ov", VNI: testVNI, MTU: 1450,
		Foreign: []netip.AddrPort{netip.MustParseAddrPort("10.99.0.2:4789")}})
	c := newStation(t, sw, 2, 1450)
	stream(t, c.netns, there, netip.MustParseAddr("10.9.0.99"), 1<<20)
	if p := f.Peers()[0]; p.PathMTU != 1320 {
		t.Errorf("the path's MTU is 1320, and %d is known", p.PathMTU)
	}
	own.ip(t, "route flush cache") // as after ten minutes
	waitFor(t, "larger path MTU", func() bool { return f.Peers()[0].PathMTU == 1500 })
}

// TestAPathThatSwallowsLargePackets: at its end is an interface with a smaller MTU, and nobody says so.
func TestAPathThatSwallowsLargePackets(t *testing.T) {
	t.Parallel()
	for _, isSealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", isSealed), func(t *testing.T) {
			t.Parallel()
			h := startHosts(t, 1500, isSealed)
			// super-datagrams would get through whole
			h[0].host.run(t, "ethtool", "-K", "h1", "tx", "off", "gso", "off")
			h[1].host.ip(t, "link set h2 mtu 1300")
			stream(t, h[0].container, h[1].container, netip.MustParseAddr("10.9.0.2"), 1<<20)
			h[0].say(t, "state")
			state := h[0].hear(t)
			var mtu int
			if i := strings.Index(state, "PathMTU:"); i < 0 {
				t.Fatal(state)
			} else if _, err := fmt.Sscanf(state[i:], "PathMTU:%d", &mtu); err != nil || mtu > 1300 || mtu < 1280 {
				t.Errorf("the path's MTU is 1300: %s", state)
			}
		})
	}
}
