package overlay

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// ways are the commands that `uplink check` prints, each way's behind its title.
func (h *host) ways(device string) map[string][]string {
	h.t.Helper()
	r := h.fails("cannot be used yet", "uplink", "check", device)
	if !strings.Contains(r.stderr, "usernet explain an-uplink-cannot-be-used") {
		h.t.Errorf("another topic than uplinks: %s", r.stderr)
	}
	list := map[string][]string{}
	title := ""
	for line := range strings.Lines(r.stdout) {
		line = strings.TrimSuffix(line, "\n")
		switch command, is := strings.CutPrefix(line, "    "); {
		case is:
			list[title] = append(list[title], command)
		case strings.HasSuffix(line, ":"):
			title = strings.TrimSuffix(strings.TrimSpace(line), ":")
		}
	}
	return list
}

// administer runs commands as root, as they were printed, with words for what the administrator has to know.
func (h *host) administer(commands []string, words ...string) {
	h.t.Helper()
	if len(commands) == 0 {
		h.t.Fatal("there are no commands")
	}
	for _, c := range commands {
		c = strings.NewReplacer(words...).Replace(c)
		if strings.HasPrefix(c, "chown") {
			index, _ := strconv.Atoi(strings.TrimSpace(h.sys("cat /sys/class/net/up0/ifindex")))
			h.tapNode(index)
		}
		h.sys(c)
	}
}

// sys runs a command line as root, with the namespace's own /sys.
func (h *host) sys(command string) string {
	h.t.Helper()
	return rootIn(h.t, h.ns(), "unshare", "--mount", "bash", "-ec", "mount -t sysfs sysfs /sys; "+command)
}

// TestWhatUplinkCheckSaysWorks runs the commands that the administrator is told to run, for each kind of device, and
// then has a container there.
func TestWhatUplinkCheckSaysWorks(t *testing.T) {
	h := newHost(t, 1)
	l := newLAN(t, h)
	rootIn(t, h.ns(), "ip", "link", "add", "bx", "type", "bridge")
	t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "bx") })
	rootIn(t, h.ns(), "ip", "link", "set", "bx", "up")
	static := []string{"--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1", "--ip-range", "198.51.100.64/26",
		"--ipv6", "--subnet", "2001:db8:51::/64", "--gateway", "2001:db8:51::1"}
	for name, way := range map[string]struct {
		title string
		flags []string
	}{
		"macvtap": {"a macvtap on eth0, for one container at a time", static},
		"bridge":  {"or a TAP in a bridge, for any number of containers", static},
		"routed": {"or a TAP that the host routes to, for containers with addresses of a subnet of their own",
			nil},
	} {
		t.Run(name, func(t *testing.T) {
			title, flags := way.title, way.flags
			h.administer(h.ways("up0")[title],
				"link eth0", "link p0", "BRIDGE", "bx", "ADDRESS/LENGTH", "203.0.113.1/24")
			t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "up0") })
			if strings.Contains(title, "bridge") {
				rootIn(t, h.ns(), "ip", "link", "set", "p0", "master", "bx")
				t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "set", "p0", "nomaster") })
			}
			if out := h.ok("uplink", "check", "up0"); !strings.Contains(out, "it can be used") {
				t.Errorf("uplink check: %s", out)
			}
			h.start()
			defer h.stop(syscall.SIGTERM)
			h.ok(append(append([]string{"network", "create", "-d", "macvlan", "-o", "parent=up0"}, flags...), "lan")...)
			h.serve("web", []string{"--network", "lan", "-p", "8080:80"}, helper, "tcpserve", ":80", "digest")
			web := h.address("web", "eth0").String()
			if flags == nil {
				reaches(t, h.ns(), web)
				h.pings("web", "203.0.113.1")
				h.fails("IPv6", "network", "create", "-d", "macvlan", "-o", "parent=up0.30", "--ipv6", "none")
			} else {
				l.conflict(h, web)
				reaches(t, lanNS, web)
				reaches(t, lanNS, "2001:db8:51::2")
			}
			h.seesHost("web")
			h.ok("rm", "-f", "web")
			h.ok("network", "prune", "-f")
		})
	}
}

// conflict has a station claim a container's address, which is defended.
func (l *lan) conflict(h *host, address string) {
	l.t.Helper()
	rootIn(l.t, lanNS, "ip", "addr", "add", address+"/24", "dev", "lan0")
	eventually(l.t, func() error {
		// It asks for a station that there is not: with an ARP request of its own.
		_ = exec.Command("nsenter", "--net="+lanNS, "ping", "-c1", "-W1", "-I", address, "198.51.100.250").Run()
		if log := h.logText(); !strings.Contains(log, "event=uplink-address-conflict") {
			return fmt.Errorf("nobody defends %s: %s", address, tail(log, 20))
		}
		return nil
	})
	rootIn(l.t, lanNS, "ip", "addr", "del", address+"/24", "dev", "lan0")
}
