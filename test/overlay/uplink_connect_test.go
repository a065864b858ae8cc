package overlay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// foreign starts a process with a user and a network namespace of its own, which usernet has nothing to do with, and
// returns its pid.
func (h *host) foreign(name string) (pid string) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	file := filepath.Join(h.dir, "run", name+".pid")
	cmd := h.command(ctx, "unshare", "--user", "--map-root-user", "--net", "sh", "-c",
		`echo $$ >"$0".new && mv "$0".new "$0" && exec busybox sleep 1000000`, file)
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if n, err := strconv.Atoi(pid); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
		cancel()
		_ = cmd.Wait()
	})
	eventually(h.t, func() error {
		text, err := os.ReadFile(file)
		pid = strings.TrimSpace(string(text))
		return err
	})
	return pid
}

// TestPipeworksJobsOnAPhysicalNetwork connects a running container, and a process that usernet did not start, with a
// physical network: with addresses of its DHCP server's, and static ones. VLANs are in TestTAPInABridge.
func TestPipeworksJobsOnAPhysicalNetwork(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	h.macvtap("mt7", "passthru", 4707)
	h.start()
	l.serveDHCP("198.51.100.100", "198.51.100.150")
	h.ok("network", "create", "mynet")
	h.idle("web", "--network", "mynet")
	pid := h.foreign("ext")
	h.ok("attach", "--pid", pid, "--name", "ext", "--network", "mynet")
	both := []connectable{
		{h, "web", func(command ...string) result { return h.exec("web", command...) }},
		{h, "ext", func(command ...string) result {
			return h.run("nsenter", append([]string{"--preserve-credentials", "--user", "--net", "--target", pid},
				command...)...)
		}},
	}

	h.ok("network", "create", "-d", "macvlan", "-o", "parent=mt7", "pub")
	leased := []string{"inet 198.51.100.1", "default via 198.51.100.1 dev lan0",
		"203.0.113.0/24 via 198.51.100.9 dev lan0"}
	for i, c := range both {
		before := c.in("ip", "route").stdout
		mac := fmt.Sprint("02:00:5e:10:00:0", i+1)
		h.ok("network", "connect", "--interface", "lan0", "--mac-address", mac, "--gw-priority", "5", "--route",
			"203.0.113.0/24=198.51.100.9", "pub", c.name)
		c.has(append(leased, mac)...)
		l.leased(mac+" 198.51.100.1", true)
		c.pings("198.51.100.1")
		h.stop(syscall.SIGKILL)
		h.again()
		c.has(append(leased, mac)...)
		c.pings("198.51.100.1")
		c.disconnect("pub", before)
		l.leased(mac, false)
	}
	h.ok("network", "rm", "pub")

	h.ok("network", "create", "-d", "macvlan", "-o", "parent=mt7", "--subnet", "198.51.100.0/24", "--gateway",
		"198.51.100.1", "lan")
	for i, c := range both {
		before := c.in("ip", "route").stdout
		ip := fmt.Sprint("198.51.100.7", i)
		h.ok("network", "connect", "--ip", ip, "--interface", "lan0", "lan", c.name)
		c.has("inet " + ip + "/24")
		c.pings("198.51.100.1")
		c.disconnect("lan", before)

		mac := fmt.Sprint("02:00:5e:10:00:1", i)
		h.ok("network", "connect", "--dhcp", "--mac-address", mac, "--interface", "lan0", "lan", c.name)
		c.has(mac, "inet 198.51.100.1")
		l.leased(mac+" 198.51.100.1", true)
		c.pings("198.51.100.1")
		c.disconnect("lan", before)
		l.leased(mac, false)
	}
	h.ok("network", "rm", "lan")
}

// tagsForeign has a process that usernet did not start, on host h, and a container that runs, on another, in one VLAN
// of the network lan of both; untagged is a container of the other's in none.
func (h *host) tagsForeign(other *host, untagged string) {
	h.t.Helper()
	h.ok("network", "create", "mynet")
	pid := h.foreign("ext")
	h.ok("attach", "--pid", pid, "--name", "ext", "--network", "mynet")
	h.fails("another network, office, is on it", "network", "connect", "--vlan", "20", "--ip", "198.51.100.30",
		"--interface", "lan0", "lan", "ext")
	if text, err := os.ReadFile("/proc/" + pid + "/net/dev"); err != nil || strings.Contains(string(text), "lan0") {
		h.t.Errorf("a connect that fails leaves an interface: %s %v", text, err)
	}
	h.ok("network", "connect", "--vlan", "30", "--ip", "198.51.100.30", "--interface", "lan0", "lan", "ext")
	other.idle("tagged")
	other.ok("network", "connect", "--vlan", "30", "--ip", "198.51.100.90", "lan", "tagged")
	other.pings("tagged", "198.51.100.30")
	if other.ping(untagged, "198.51.100.30") == nil {
		h.t.Error("who has no tag is in the VLAN")
	}
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=ux.30", "--subnet", "10.30.0.0/24", "--gateway",
		"10.30.0.254", "thirty")
	h.fails("network lan is on this VLAN", "run", "--rm", "--network", "thirty", "--", "true")
	h.ok("network", "disconnect", "lan", "ext")
	h.ok("run", "--rm", "--network", "thirty", "--", "true") // nobody else is in the VLAN any more
	h.ok("network", "rm", "thirty")
	h.ok("network", "connect", "--ip", "198.51.100.30", "--interface", "lan0", "lan", "ext")
	other.pings(untagged, "198.51.100.30")
	h.ok("detach", "ext")
}

// connectable is a container, and how a command is run in it.
type connectable struct {
	*host
	name string
	in   func(command ...string) result
}

// has waits until lan0 and the routes show all words: an address of DHCP may come after the interface.
func (c connectable) has(words ...string) {
	c.t.Helper()
	eventually(c.t, func() error {
		shown := c.in("ip", "addr", "show", "lan0").stdout + c.in("ip", "route").stdout
		for _, w := range words {
			if !strings.Contains(shown, w) {
				return fmt.Errorf("%s has no %q: %s", c.name, w, shown)
			}
		}
		return nil
	})
}

func (c connectable) pings(target string) {
	c.t.Helper()
	eventually(c.t, func() error {
		if r := c.in("ping", "-c1", "-W2", target); r.code != 0 {
			return fmt.Errorf("no answer: %v", r)
		}
		return nil
	})
}

// disconnect takes a network away, and checks that nothing of it is left.
func (c connectable) disconnect(network, before string) {
	c.t.Helper()
	c.ok("network", "disconnect", network, c.name)
	if after := c.in("ip", "route").stdout; after != before {
		c.t.Errorf("routes before:\n%s\nand after:\n%s", before, after)
	}
	if r := c.in("ip", "addr", "show", "lan0"); r.code == 0 {
		c.t.Errorf("the interface is still there: %v", r)
	}
}
