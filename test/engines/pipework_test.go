package engines

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestPipeworksJobsForPodman gives running containers of Podman's what pipework gives, and takes it away: one that the
// CNI plugin attached, one of no network of Podman's that `usernet attach` has attached by its process, and one whose
// connection is slirp4netns's place.
func TestPipeworksJobsForPodman(t *testing.T) {
	p, end := newCNIPodman(t)
	p.makesOffice()
	p.ok("podman", "run", "-d", "--name", "cni", "--network", "un1", "bb:1", "sleep", "1000")
	p.ok("podman", "run", "-d", "--name", "none", "--network", "none", "bb:1", "sleep", "1000")
	p.ok(usernet, "attach", "--pid", p.ok("podman", "inspect", "-f", "{{.State.Pid}}", "none"), "--name", "none",
		"--network", "mynet")
	p.joins("slirp", "slirp4netns")
	p.pipeworksJobs(t, end, "cni", "none", "slirp")
	p.nothing("podman rm")
}

// TestPodman5PipeworksJobs is the same for containers that the netavark plugin attached, and pasta's place.
func TestPodman5PipeworksJobs(t *testing.T) {
	p := newPodman5(t)
	_, end := p.daemon()
	p.makesOffice()
	p.ok(usernet, "integrate", "netavark", "--write")
	p.ok("podman", "network", "create", "-d", "usernet", "--subnet", "10.88.7.0/24", "un1")
	p.ok("podman", "run", "-d", "--name", "netavark", "--network", "un1", "bb:1", "sleep", "1000")
	p.joins("pasta", "pasta")
	p.pipeworksJobs(t, end, "netavark", "pasta")
	p.nothing("podman rm")
}

// makesOffice makes the network office with a service outside of VLANs and one in VLAN 20, and the network mynet.
func (p *podman) makesOffice() {
	p.t.Helper()
	p.ok(usernet, "network", "create", "mynet")
	p.ok(usernet, "network", "create", "--subnet", "10.61.0.0/24", "--gateway", "10.61.0.254", "office")
	for name, network := range map[string]string{
		"far": "name=office,ip=10.61.0.9", "far20": "name=office,ip=10.61.0.20,vlan=20",
	} {
		p.ok(usernet, "run", "-d", "--name", name, "--network", network, "--", helper, "tcpserve", ":80", "addr")
	}
}

// joins starts a container whose connection to mynet is the place of a program, which network names to Podman.
func (p *podman) joins(name, network string) {
	p.t.Helper()
	v := *p.user
	v.environ = append(v.environ, "USERNET_NETWORK=mynet", "USERNET_NAME="+name)
	v.ok("podman", "run", "-d", "--name", name, "--network", network, "bb:1", "sleep", "1000")
}

// pipeworksJobs does them for each container, over the end of a daemon, and removes the containers.
func (p *podman) pipeworksJobs(t *testing.T, end func(syscall.Signal), names ...string) {
	t.Helper()
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			u := *p.user
			u.t = t
			c := connected{&u, name, fmt.Sprint("10.61.0.", 70+i), fmt.Sprint("02:00:5e:10:00:7", i)}
			before := c.in("ip", "route")
			c.connect()
			c.reaches("10.61.0.9")
			end(syscall.SIGKILL)
			_, end = p.daemon()
			c.reaches("10.61.0.9")
			c.look()
			c.disconnect(before)
			u.ok(usernet, "network", "connect", "--vlan", "20", "--ip", c.ip, "office", name)
			c.reaches("10.61.0.20")
			if r := c.try("podman", c.dials("10.61.0.9")...); strings.Contains(r.stdout, "ok") {
				t.Errorf("a container of a VLAN reaches one of none: %v", r)
			}
			c.disconnect(before)
			if r := u.try(usernet, "network", "connect", "--dhcp", "office", name); r.code == 0 ||
				!strings.Contains(r.stderr, "no DHCP server") {
				t.Errorf("DHCP on a network without: %v", r)
			}
		})
	}
	// What it is connected to ends with the container.
	p.ok(usernet, "network", "connect", "office", names[0])
	p.ok("podman", append([]string{"rm", "--force", "--time", "0"}, names...)...)
	p.ok(usernet, "rm", "-f", "far", "far20")
}

// connected is a container of Podman's that is connected to the network office.
type connected struct {
	*user
	name, ip, mac string
}

func (c connected) in(command ...string) string {
	c.t.Helper()
	return c.ok("podman", append([]string{"exec", c.name}, command...)...)
}

func (c connected) connect() {
	c.t.Helper()
	c.ok(usernet, "network", "connect", "--ip", c.ip, "--mac-address", c.mac, "--interface", "lan0", "--route",
		"10.99.0.0/16=10.61.0.9", "--route", "10.98.0.1/32", "--gw-priority", "5", "office", c.name)
	c.look()
}

// look checks what the container has by being connected.
func (c connected) look() {
	c.t.Helper()
	shown := c.in("ip", "addr", "show", "lan0") + "\n" + c.in("ip", "route")
	for _, want := range []string{
		"inet " + c.ip + "/24", c.mac, "10.99.0.0/16 via 10.61.0.9 dev lan0", "10.98.0.1 dev lan0",
		"default via 10.61.0.254 dev lan0",
	} {
		if !strings.Contains(shown, want) {
			c.t.Errorf("no %q: %s", want, shown)
		}
	}
}

func (c connected) reaches(address string) {
	c.t.Helper()
	c.answers("ok "+c.ip, "podman", c.dials(address)...)
}

// dials are Podman's arguments that have the container connect to a service, which says who it is.
func (c connected) dials(address string) []string {
	return []string{"exec", c.name, "helper", "tcpdial", address + ":80", "3s"}
}

// disconnect takes the network away, and checks that the routes are those of before.
func (c connected) disconnect(before string) {
	c.t.Helper()
	c.ok(usernet, "network", "disconnect", "office", c.name)
	if after := c.in("ip", "route"); after != before {
		c.t.Errorf("routes before:\n%s\nand after:\n%s", before, after)
	}
	if r := c.try("podman", "exec", c.name, "ip", "addr", "show", "lan0"); r.code == 0 {
		c.t.Errorf("the interface is still there: %v", r)
	}
}
