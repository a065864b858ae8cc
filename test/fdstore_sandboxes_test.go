package test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestServiceManagerKeepsSandboxes kills the daemon and starts it again with what it had the service manager keep: the
// interfaces of its containers never are without a carrier. What ends is kept no longer, and published ports come
// first.
func TestServiceManagerKeepsSandboxes(t *testing.T) {
	d := newDaemon(t)
	notify := filepath.Join(d.dir, "notify")
	m := startManager(t, notify)
	t.Setenv("NOTIFY_SOCKET", notify)
	const limit = 20
	t.Setenv("FDSTORE", fmt.Sprint(limit))
	d.start()
	d.ok("network", "create", "one")
	d.ok("network", "create", "two")
	d.serve("web", []string{"--network", "one"}, helper, "tcpserve", ":80", "echo")
	d.idle("client", "--network", "one")
	d.idle("both", "--network", "one", "--network", "two")
	d.idle("gone", "--network", "one")
	const sandboxes, ports = "usernet/sandbox-", "usernet/published/"
	m.holds(t, sandboxes, 5+4*3) // interfaces, and the stubs' sockets and rules
	inside := d.hold("client", "web:80")
	inside.echoes("before")
	carriers := func(names ...string) string {
		var all strings.Builder
		for _, name := range names {
			fmt.Fprintf(&all, "%s %s\n", name, d.exec(name, "sh", "-c", "head /sys/class/net/eth*/carrier_changes /sys/class/net/eth*/carrier").stdout)
		}
		return all.String()
	}
	before := carriers("web", "client", "both")
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		d.stop(signal)
		if _, err := io.WriteString(inside.in, "while it was away\n"); err != nil {
			t.Fatal(err)
		}
		m.starts(d)
		d.start()
		inside.wants("while it was away")
		d.says("web", "client", "getent", "hosts", "web")
		m.holds(t, sandboxes, 5+4*3)
	}
	if after := carriers("web", "client", "both"); after != before {
		t.Errorf("carriers were\n%s\nare\n%s", before, after)
	}

	// What ends while no daemon runs must not be held by what is kept of it, nor what ends under its eyes.
	pid := d.pid("gone")
	d.stop(syscall.SIGKILL)
	syscall.Kill(pid, syscall.SIGKILL)
	m.starts(d)
	d.start()
	m.holds(t, sandboxes, 4+3*3)
	d.ok("network", "disconnect", "two", "both")
	m.holds(t, sandboxes, 3+3*3)
	d.ok("network", "connect", "two", "both")
	m.holds(t, sandboxes, 4+3*3)
	d.says(" 0% packet loss", "both", "ping", "-c1", "-W5", d.address("web"))

	// Ports take the place of sandboxes where the store is full, and no more than fit are kept.
	var flags []string
	const published = limit - (4 + 3*3) + 2
	first := freePort()
	for i := range published {
		flags = append(flags, "-p", fmt.Sprintf("127.0.0.1:%d:80", first+i))
	}
	d.serve("many", append(flags, "--network", "one"), helper, "tcpserve", ":80", "echo")
	m.holds(t, ports, published)
	m.holds(t, sandboxes, limit-published)
	d.stop(syscall.SIGKILL)
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", first), patience)
	if err != nil {
		t.Fatalf("while no daemon runs: %v", err)
	}
	defer c.Close()
	m.starts(d)
	d.start()
	inside.echoes("after")
	for _, name := range []string{"web", "client", "both", "many"} {
		d.says(" 0% packet loss", name, "ping", "-c1", "-W5", d.gateway(name))
	}
	m.holds(t, ports, published)
	if m.most > limit {
		t.Errorf("%d were to be kept, the limit is %d", m.most, limit)
	}
	d.ok(append([]string{"rm", "-f"}, strings.Fields(d.ok("ps", "-aq"))...)...)
	m.holds(t, "", 0)
	if text := d.logText(); strings.Contains(text, "of no use") {
		t.Error("something that was kept was not used")
	}
}
