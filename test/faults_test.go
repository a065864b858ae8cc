package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/usernet/usernet/internal/hang"
)

// TestOutOfDescriptors gives the daemon few descriptors and a container that wants more.
func TestOutOfDescriptors(t *testing.T) {
	d := newDaemon(t)
	d.prefix = []string{"prlimit", "--nofile=256:256"}
	d.start()
	port := freePort()
	address := net.JoinHostPort(host4, fmt.Sprint(port))
	listen(t, address, echo)
	d.idle("greedy")
	d.idle("box")
	kept := d.hold("box", address)
	kept.echoes("before")
	// The client's own limit is higher; what it does not get is refused, or not answered.
	d.exec("greedy", "timeout", "10", "prlimit", "--nofile=256:256", helper, "tcpmany", address, "240")
	kept.echoes("while others had them all")
	d.ok("network", "ls")
	d.ok("exec", "greedy", "true")
	eventually(t, func() error {
		if out := d.ok("exec", "box", helper, "tcpdial", address, "3s"); !strings.HasPrefix(out, "ok") {
			return fmt.Errorf("when they are free again: %s", out)
		}
		return nil
	})
	kept.echoes("after")
}

// TestDiskFull fills the file system of the state.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	state := filepath.Join(d.dir, "state")
	asRoot(t, "mkdir -m 700 "+state+" && mount -t tmpfs -o size=1m,mode=700 tmpfs "+state)
	t.Cleanup(func() { asRoot(t, "umount -l "+state) })
	d.start()
	d.ok("network", "create", "before")
	d.idle("box", "--network", "before")
	d.idle("peer", "--network", "before")
	asRoot(t, "dd if=/dev/zero of="+state+"/filler bs=4k count=1000 2>/dev/null || true")
	failed := 0
	for i := range 50 {
		name := fmt.Sprintf("full%d", i)
		r := d.try("network", "create", name)
		if r.code == 0 {
			continue // what was there has had room for it
		}
		failed++
		if !strings.Contains(r.stderr, "no space left on device") {
			t.Errorf("the reason is missing: %v", r)
		}
		if r := d.try("network", "inspect", name); r.code == 0 {
			t.Errorf("a network that was refused is there: %v", r)
		}
		break
	}
	if failed == 0 {
		t.Error("a full disk was never noticed")
	}
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "peer")
	asRoot(t, "rm "+state+"/filler")
	d.ok("network", "create", "after")
	d.stop(syscall.SIGKILL)
	d.start()
	for _, name := range []string{"before", "after"} {
		d.ok("network", "inspect", name)
	}
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", "peer")
}

// TestHostLosesItsRoute takes the default route away and gives it back.
func TestHostLosesItsRoute(t *testing.T) {
	d := startDaemon(t)
	port := freePort()
	near, far := net.JoinHostPort(peer4, fmt.Sprint(port)), net.JoinHostPort("203.0.113.77", fmt.Sprint(port))
	atPeer(t, "ip addr add 203.0.113.77/32 dev lo")
	t.Cleanup(func() { atPeer(t, "ip addr del 203.0.113.77/32 dev lo") })
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d echo", helper, port))
	d.idle("box")
	d.says("ok", "box", helper, "tcpdial", far, "5s")
	kept := d.hold("box", near)
	asRoot(t, "ip route del default via "+peer4)
	restored := false
	restore := func() {
		if !restored {
			restored = true
			asRoot(t, "ip route add default via "+peer4)
		}
	}
	t.Cleanup(restore)
	if out := d.ok("exec", "box", helper, "tcpdial", far, "5s"); !strings.HasPrefix(out, "ENETUNREACH") {
		t.Errorf("without a route: %s", out)
	}
	kept.echoes("on the link")
	restore()
	d.says("ok", "box", helper, "tcpdial", far, "5s")
}

// TestHostsAddressChanges is a laptop that changes the network: the host's address is another one from now on.
func TestHostsAddressChanges(t *testing.T) {
	const before, after = "192.0.2.77", "192.0.2.78"
	d := newDaemon(t)
	move := func(from, to string) {
		t.Helper()
		asRoot(t, fmt.Sprintf(`[ %s = %s ] || ip addr add %[2]s/32 dev lan0
			ip route replace 192.0.2.0/24 dev lan0 src %[2]s
			[ %[1]s = %[3]s ] || ip addr del %[1]s/32 dev lan0`, from, to, host4))
	}
	move(host4, before)
	now := before
	t.Cleanup(func() {
		asRoot(t, fmt.Sprintf("ip route replace 192.0.2.0/24 dev lan0 src %s; ip addr del %s/32 dev lan0", host4, now))
	})
	d.start()
	port := freePort()
	server := net.JoinHostPort(peer4, fmt.Sprint(port))
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
	startAtPeer(t, fmt.Sprintf("%s udpserve :%d addr", helper, port))
	d.serve("web", []string{"-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	d.idle("box")
	seen := func(address string) {
		t.Helper()
		d.says("\n"+address+":", "box", helper, "tcpdial", server, "5s")
		d.says(address+":", "box", helper, "udpmap", server, server)
		published := net.JoinHostPort(address, fmt.Sprint(port))
		if out := atPeer(t, helper+" tcpdial "+published+" 5s"); !strings.Contains(out, "\n"+peer4+":") {
			t.Errorf("the peer connects to %s: %s", published, out)
		}
		eventually(t, func() error { // the daemon looks for its host's addresses once a second at most
			if out := d.command(helper, "tcpdial", published, "5s").stdout; !strings.Contains(out, "\n"+d.gateway(
				"web")+":") {
				return fmt.Errorf("the host connects to its own %s: %s", published, out)
			}
			return nil
		})
		d.says("0% packet loss", "box", "ping", "-c1", "-W5", peer4)
	}
	seen(before)
	move(before, after)
	now = after
	seen(after)
	if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d 1s", helper, before, port)); strings.HasPrefix(out, "ok") {
		t.Errorf("the old address still answers: %s", out)
	}
}

// TestDaemonIsStoppedForAWhile is what a suspend of the machine is to those who talk through it.
func TestDaemonIsStoppedForAWhile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	address := net.JoinHostPort(host4, fmt.Sprint(port))
	listen(t, address, echo)
	d.ok("network", "create", "lan")
	d.serve("web", []string{"--network", "lan"}, helper, "tcpserve", ":80", "echo")
	d.idle("box", "--network", "lan")
	inside, outside := d.hold("box", "web:80"), d.hold("box", address)
	pid := d.cmd.Process.Pid
	box := d.ok("inspect", "-f", "{{.State.Pid}}", "box")
	before := retransmitted(t, box)
	hang.Stop(t, pid)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // else the end of a test that fails waits for it
	fmt.Fprintln(inside.in, "while it was stopped")
	fmt.Fprintln(outside.in, "while it was stopped")
	// Inside; outside, the kernel takes it off its hands. The pause before each doubles, and the first is as long as a
	// busy machine's round trips have been: more of them can take minutes.
	eventually(t, func() error {
		if n := retransmitted(t, box) - before; n < 2 {
			return fmt.Errorf("the container has sent %d segments again", n)
		}
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*held{inside, outside} {
		h.wants("while it was stopped")
		h.echoes("after")
	}
}

// retransmitted is how many TCP segments the network namespace of a process has sent again (proc_pid_net(5), snmp).
func retransmitted(t *testing.T, pid string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", pid, "net/snmp"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Tcp:":
		case names == nil:
			names = fields
		default:
			n, err := strconv.Atoi(fields[slices.Index(names, "RetransSegs")])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no TCP in %s", text)
	return 0
}

// TestMemoryLimit runs the daemon with little memory for its heap, and moves much data through it.
func TestMemoryLimit(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "40MiB")
	d := startDaemon(t)
	port := freePort()
	address := net.JoinHostPort(host4, fmt.Sprint(port))
	startAndWaitFor(t, exec.Command(helper, "tcpserve", address, "digest"), "listening\n")
	d.idle("box")
	size := "50000000"
	if raceBuild {
		size = "5000000"
	}
	d.says("same "+size, "box", helper, "tcpsend", address, size)
	d.says("echoed 500", "box", helper, "tcpmany", func() string {
		other := net.JoinHostPort(host4, fmt.Sprint(port+1))
		listen(t, other, echo)
		return other
	}(), "500")
}
