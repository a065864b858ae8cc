package test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// reaches is what a container's connection to address ends with: "ok", or the name of the error.
func (d *daemon) reaches(name, address string) string {
	d.t.Helper()
	return strings.Fields(d.ok("exec", name, helper, "tcpdial", address, "5s"))[0]
}

func TestEgressPolicy(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	host := net.JoinHostPort(host4, fmt.Sprint(port))
	listen(t, host, func(c *net.TCPConn) { c.Close() })
	startAtPeer(t, fmt.Sprintf("%s tcpserve :%d addr", helper, port))
	peer := net.JoinHostPort(peer4, fmt.Sprint(port))
	d.ok("network", "create", "--egress", "deny", "--allow-egress", fmt.Sprintf("*.example.test:%d", port), "closed")
	if out := d.ok("network", "inspect", "closed"); !strings.Contains(out, `"usernet.egress": "deny"`) || !strings.Contains(out, "*.example.test") {
		t.Errorf("inspect does not show the policy: %s", out)
	}
	d.idle("build", "--network", "closed")
	d.idle("other", "--network", "closed", "--allow-egress", host4+"/32")
	d.idle("free", "--network", "closed", "--egress", "allow")
	d.idle("default")

	t.Run("refused with a reset", func(t *testing.T) {
		d := d.in(t)
		for _, address := range []string{host, peer} {
			if got := d.reaches("build", address); got != "ECONNREFUSED" {
				t.Errorf("%s: %s", address, got)
			}
		}
		if r := d.exec("build", "ping", "-c1", "-W5", peer4); r.code == 0 || !strings.Contains(r.stdout,
			"Packet filtered") {
			t.Errorf("ping: %v", r)
		}
		if r := d.exec("build", helper, "udpdial", peer, "x"); strings.Contains(r.stdout, "x\n") {
			t.Errorf("UDP: %v", r)
		}
		eventually(t, func() error { return fileHas(d.dir+"/log", "--egress deny") })
	})
	t.Run("a name that is allowed", func(t *testing.T) {
		d := d.in(t)
		if got := d.reaches("build", fmt.Sprintf("www.example.test:%d", port)); got != "ok" {
			t.Errorf("by name: %s", got)
		}
	})
	t.Run("an answer from the cache counts as well", func(t *testing.T) {
		d := d.in(t)
		d.idle("second", "--network", "closed")
		if got := d.reaches("second", fmt.Sprintf("www.example.test:%d", port)); got != "ok" {
			t.Errorf("by name: %s", got)
		}
	})
	t.Run("the answer counts for who got it", func(t *testing.T) {
		d := d.in(t)
		if got := d.reaches("other", peer); got != "ECONNREFUSED" {
			t.Errorf("the other container: %s", got)
		}
	})
	t.Run("a container's own rules", func(t *testing.T) {
		d := d.in(t)
		if got := d.reaches("other", host); got != "ok" {
			t.Errorf("its own subnet: %s", got)
		}
		if got := d.reaches("free", peer); got != "ok" {
			t.Errorf("with a mode of its own: %s", got)
		}
	})
	t.Run("metadata is refused without a policy", func(t *testing.T) {
		d := d.in(t)
		for _, name := range []string{"default", "free"} {
			if got := d.reaches(name, "169.254.169.254:80"); got != "ECONNREFUSED" {
				t.Errorf("%s: %s", name, got)
			}
			if got := d.reaches(name, peer); got != "ok" {
				t.Errorf("%s to the peer: %s", name, got)
			}
		}
	})
	t.Run("neighbours and names of the network", func(t *testing.T) {
		d := d.in(t)
		d.says(" 0% packet loss", "build", "ping", "-c1", "-W5", "other")
	})
	t.Run("it is kept over a kill", func(t *testing.T) {
		d.t = t
		d.stop(syscall.SIGKILL)
		d.start()
		if got := d.reaches("build", host); got != "ECONNREFUSED" {
			t.Errorf("after a kill: %s", got)
		}
		if got := d.reaches("other", host); got != "ok" {
			t.Errorf("after a kill, a container's own rule: %s", got)
		}
	})
	d.fails("egress rule", "network", "create", "--allow-egress", "x.test:http", "bad")
	d.fails("give allow or deny", "run", "--rm", "--egress", "maybe", "--", "true")
}
