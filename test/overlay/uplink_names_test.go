package overlay

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// resolver starts a name server on the physical network's station for the length of a test: printer.lan.example has an
// address.
func (l *lan) resolver(at, address string) {
	l.t.Helper()
	cmd := exec.Command("nsenter", "--net="+lanNS, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv",
		"--no-hosts", "--user=root", "--bind-interfaces", "--listen-address="+at, "--pid-file=",
		"--address=/printer.lan.example/"+address)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

// names waits until a name has an address in a container.
func (h *host) names(container, name, address string) {
	h.t.Helper()
	eventually(h.t, func() error {
		r := h.exec(container, "getent", "ahostsv4", name)
		if got, _, _ := strings.Cut(r.stdout, " "); strings.TrimSpace(got) != address {
			return fmt.Errorf("%s is %q in %s, wanted %q: %v", name, got, container, address, r)
		}
		return nil
	})
}

// TestNameServersOfAPhysicalNetwork: names are asked of the servers that routers announce, and where a DHCP server
// names some, of those, unless others were given.
func TestNameServersOfAPhysicalNetwork(t *testing.T) {
	const name = "printer.lan.example"
	h := newHost(t, 1)
	l := newLAN(t, h)
	h.tap("ux")
	t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "ux") })
	rootIn(t, h.ns(), "ip", "link", "add", "bx", "type", "bridge")
	t.Cleanup(func() { rootIn(t, h.ns(), "ip", "link", "del", "bx") })
	for _, dev := range []string{"p0", "ux"} {
		rootIn(t, h.ns(), "ip", "link", "set", dev, "master", "bx", "up")
	}
	rootIn(t, h.ns(), "ip", "addr", "add", "198.51.100.2/24", "dev", "bx")
	rootIn(t, h.ns(), "ip", "addr", "add", "2001:db8:51::2/64", "dev", "bx", "nodad")
	rootIn(t, h.ns(), "ip", "link", "set", "bx", "up")
	h.start()
	rootIn(t, lanNS, "ip", "addr", "add", "2001:db8:51::3/64", "dev", "lan0", "nodad")
	l.resolver("2001:db8:51::1", "198.51.100.66")
	l.resolver("2001:db8:51::3", "198.51.100.88")
	l.resolver("198.51.100.1", "198.51.100.44")
	const rdnss = "--dhcp-option=option6:dns-server,[2001:db8:51::1]"

	l.serve("--enable-ra", advertise, "--dhcp-range=2001:db8:51::,ra-only,64,2h", rdnss)
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=ux", "--subnet", "198.51.100.0/24", "--gateway",
		"198.51.100.1", "--ip-range", "198.51.100.64/26", "--ipv6", "lan")
	h.idle("routed", "--network", "lan")
	h.idle("given", "--network", "lan", "--dns", "198.51.100.1")
	h.names("routed", name, "198.51.100.66")
	h.names("given", name, "198.51.100.44")
	h.names("routed", "given", h.address("given", "eth0").String())
	h.stop(syscall.SIGKILL)
	h.again()
	h.names("routed", name, "198.51.100.66")

	// The router announces another one.
	l.stopDHCP()
	l.serve("--enable-ra", advertise, "--dhcp-range=2001:db8:51::,ra-only,64,2h",
		"--dhcp-option=option6:dns-server,[2001:db8:51::3]")
	h.names("routed", name, "198.51.100.88")
	h.ok("rm", "-f", "routed", "given")
	h.ok("network", "rm", "lan")

	l.stopDHCP()
	l.serveDHCP("198.51.100.100", "198.51.100.150", "--enable-ra", advertise,
		"--dhcp-range=2001:db8:51::,ra-only,64,2h", rdnss, "--dhcp-option=6,198.51.100.1")
	h.ok("network", "create", "-d", "macvlan", "-o", "parent=ux", "--ipv6", "dynamic")
	h.idle("leased", "--network", "dynamic")
	h.names("leased", name, "198.51.100.44")
	h.stop(syscall.SIGKILL)
	h.again()
	h.names("leased", name, "198.51.100.44")
}
