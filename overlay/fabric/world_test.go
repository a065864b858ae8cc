package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
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
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

const insideEnv = "USERNET_FABRIC_TEST_INSIDE"

// TestMain runs the tests in a user and network namespace of their own, where an ordinary user may make interfaces.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "ip: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "these tests need unprivileged user namespaces:", err)
		os.Exit(1)
	}
}

// netns is a network namespace, and a thread in it.
type netns struct {
	calls chan func()
	tid   int
}

func newNetns(t testing.TB) *netns {
	t.Helper()
	n := &netns{calls: make(chan func())}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		for f := range n.calls {
			f()
		}
	}()
	t.Cleanup(func() { close(n.calls) })
	must(t, n.in(func() error { n.tid = unix.Gettid(); return unix.Unshare(unix.CLONE_NEWNET) }))
	n.ip(t, "link set lo up")
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs f in the namespace; a nil one is the test's own.
func (n *netns) in(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error)
	n.calls <- func() { done <- f() }
	return <-done
}

// run runs a command in the namespace and returns what it prints.
func (n *netns) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out []byte
	err := n.in(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ip runs lines of ip(8).
func (n *netns) ip(t testing.TB, lines ...string) {
	t.Helper()
	for _, l := range lines {
		n.run(t, "ip", strings.Fields(l)...)
	}
}

// path is where the namespace is found by ip(8), as a process id.
func (n *netns) pid() string { return fmt.Sprint(n.tid) }

// veth joins the test's namespace (or another) with n by a veth pair: name here, name there.
func veth(t testing.TB, here, there *netns, hereName, thereName string, mtu int) {
	t.Helper()
	here.ip(t, fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d", hereName, mtu, thereName, mtu))
	here.ip(t, fmt.Sprintf("link set %s netns %s", thereName, there.pid()))
	here.ip(t, "link set "+hereName+" up")
	there.ip(t, "link set "+thereName+" up")
}

// station is a container: a namespace with a TAP on a switch.
type station struct {
	*netns
	mac   overlay.MAC
	addrs []netip.Addr
}

// newStation makes container number of the network 10.9.0.0/24, fd09::/64.
func newStation(t testing.TB, sw *vswitch.Switch, number byte, mtu int) *station {
	t.Helper()
	s := &station{netns: newNetns(t)}
	s.mac = overlay.MAC{2, 0x42, 10, 9, 0, number}
	s.addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, number}),
		netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: number})}
	var f *os.File
	must(t, s.in(func() (err error) {
		f, err = tap.Create("eth0", s.mac[:], mtu, tap.Options{Offload: true})
		return err
	}))
	s.ip(t, fmt.Sprintf("addr add %v/24 dev eth0", s.addrs[0]),
		fmt.Sprintf("addr add %v/64 dev eth0 nodad", s.addrs[1]), "link set eth0 up")
	dev, err := tap.Open(f, false)
	must(t, err)
	port, err := sw.Connect(vswitch.PortConfig{Name: "c", MAC: s.mac[:], Addrs: s.addrs}, dev)
	must(t, err)
	served := make(chan struct{})
	go func() { defer close(served); _ = dev.Serve(port) }()
	t.Cleanup(func() { _ = port.Close(); _ = dev.Close(); <-served })
	return s
}

// plug opens a network on a fabric and connects it to a switch.
func plug(t testing.TB, f *Fabric, sw *vswitch.Switch, cfg NetworkConfig) *Link {
	t.Helper()
	l, err := f.Open(cfg)
	must(t, err)
	port, err := sw.Connect(l.PortConfig(), l)
	must(t, err)
	served := make(chan struct{})
	go func() { defer close(served); _ = l.Serve(port) }()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return l
}

// stream sends size bytes over TCP from one namespace to an address in another, both ways, and compares.
func stream(t testing.TB, from, to *netns, addr netip.Addr, size int) {
	t.Helper()
	var l net.Listener
	must(t, to.in(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}))
	defer l.Close()
	sent := pattern(size)
	echoed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			echoed <- err
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
		got, err := io.ReadAll(c)
		if err == nil && !bytes.Equal(got, sent) {
			err = errors.New("other data arrived")
		}
		if err == nil {
			_, err = c.Write(got)
		}
		echoed <- err
	}()
	var c net.Conn
	must(t, from.in(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		return err
	}))
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	_, err := c.Write(sent)
	must(t, err)
	must(t, c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	if err := <-echoed; err != nil {
		t.Fatalf("%v at the other end", err)
	}
	must(t, err)
	if !bytes.Equal(got, sent) {
		t.Fatal("other data came back")
	}
}

// startWireguard starts wireguard-go in a namespace, with the interface wg0 and one peer as wg(8) takes it, and returns
// its process. Its socket is in a directory that a mount namespace of its own has.
func startWireguard(t testing.TB, n *netns, program, key, peer string) (pid int) {
	t.Helper()
	script := fmt.Sprintf(`mount -t tmpfs none /run && mkdir /run/wireguard && echo %s > /run/key
		export WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1
		%s -f wg0 > /dev/null 2>&1 & pid=$!
		until [ -S /run/wireguard/wg0.sock ]; do sleep 0.05; done
		wg set wg0 private-key /run/key listen-port 51820 %s && echo $pid; wait`, key, program, peer)
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, n.in(cmd.Start))
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	_, err = fmt.Fscan(out, &pid)
	must(t, err)
	return pid
}
