package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// A family is a way to make networks: with IPv4, with IPv6, or with both.
type family struct {
	name   string
	v4, v6 bool
	create []string
}

var families = []family{
	{"IPv4 only", true, false, []string{"--ipv6=false"}},
	{"IPv6 only", false, true, []string{"--ipv4=false", "--ipv6"}},
	{"both", true, true, []string{"--ipv6"}},
}

// addresses are those of a container's interface, as the family has them.
func (f family) addresses(d *daemon, name, link string) []string {
	d.t.Helper()
	var list []string
	if f.v4 {
		list = append(list, d.field(`inet ([0-9.]+)/`, name, "ip", "-4", "addr", "show", link, "scope", "global"))
	}
	if f.v6 {
		list = append(list, d.field(`inet6 ([0-9a-f:]+)/`, name, "ip", "-6", "addr", "show", link, "scope", "global"))
	}
	return list
}

// options are ping's and dig's for each family that there is.
func (f family) options() []string {
	var list []string
	if f.v4 {
		list = append(list, "-4")
	}
	if f.v6 {
		list = append(list, "-6")
	}
	return list
}

func TestEachFeatureInEachFamily(t *testing.T) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			d := startDaemon(t)
			d.ok(append(append([]string{"network", "create"}, f.create...), "mynet")...)
			d.ok(append(append([]string{"network", "create"}, f.create...), "second")...)
			d.ok(append(append([]string{"network", "create", "--internal"}, f.create...), "inner")...)
			for name, test := range map[string]func(*daemon, family){
				"names and addresses": familyNames, "the way out": familyOutbound, "published ports": familyPorts,
				"connect and disconnect": familyConnect, "internal networks": familyInternal,
				"links and hosts":     familyLinks,
				"addresses asked for": familyWanted,
			} {
				t.Run(name, func(t *testing.T) { test(d.in(t), f) })
			}
			t.Run("a restart of the daemon", func(t *testing.T) { familyRestart(d, f) })
		})
	}
}

func familyNames(d *daemon, f family) {
	d.idle("n1", "--network", "mynet", "--network-alias", "other")
	d.idle("n2", "--network", "mynet")
	for _, o := range f.options() {
		for _, name := range []string{"n1", "n1.mynet", "other"} {
			d.says(" 0% packet loss", "n2", "ping", o, "-c1", "-W5", name)
		}
	}
	for _, a := range f.addresses(d, "n1", "eth0") {
		d.says(" 0% packet loss", "n2", "ping", "-c1", "-W5", a)
		d.says("n1.mynet.", "n2", "dig", "+short", "-x", a)
	}
	// The family that the network does not have answers with nothing, and not with a failure.
	for kind, there := range map[string]bool{"A": f.v4, "AAAA": f.v6} {
		r := d.exec("n2", "dig", "n1", kind)
		if there != strings.Contains(r.stdout, "ANSWER: 1,") || !strings.Contains(r.stdout, "NOERROR") {
			d.t.Errorf("%v", r)
		}
	}
	link := d.exec("n1", "ip", "addr", "show", "eth0").stdout
	if strings.Contains(link, "inet ") != f.v4 || strings.Contains(link, "scope global") != (f.v4 || f.v6) {
		d.t.Errorf("addresses of the wrong family: %s", link)
	}
	if !f.v6 && strings.Contains(link, "inet6 f") {
		d.t.Errorf("IPv6 on a network without it: %s", link)
	}
}

func familyOutbound(d *daemon, f family) {
	d.idle("o1", "--network", "mynet")
	for _, way := range []struct {
		there  bool
		target string
	}{{f.v4, peer4}, {f.v6, peer6}} {
		if r := d.exec("o1", "ping", "-c1", "-W5", way.target); way.there != (r.code == 0) {
			d.t.Errorf("wanted a way %v: %v", way.there, r)
		}
	}
	d.says("192.0.2.100", "o1", "dig", "+short", "peer.example.test") // DNS works in every family
}

func familyPorts(d *daemon, f family) {
	port := freePort()
	d.serve("p1", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:80", port)}, helper, "tcpserve", ":80", "addr")
	lines := strings.Split(d.ok("port", "p1"), "\n")
	if len(lines) != 2 { // the host's side has both families whatever the container's has, as in Docker
		d.t.Errorf("published: %q", lines)
	}
	for _, host := range []string{host4, "[" + host6 + "]"} {
		out := atPeer(d.t, fmt.Sprintf("%s tcpdial %s:%d", helper, host, port))
		inside := f.v4
		if strings.HasPrefix(host, "[") {
			inside = f.v6
		}
		if inside && !strings.HasPrefix(out, "ok") {
			d.t.Errorf("from another machine to %s: %q", host, out)
		}
	}
}

func familyConnect(d *daemon, f family) {
	d.idle("h1", "--network", "mynet")
	d.idle("h2", "--network", "second")
	d.ok("network", "connect", "--alias", "hot", "second", "h1")
	for i, a := range f.addresses(d, "h1", "eth1") {
		d.says(" 0% packet loss", "h2", "ping", "-c1", "-W5", a)
		d.says(" 0% packet loss", "h2", "ping", f.options()[i], "-c1", "-W5", "hot")
		d.says(" 0% packet loss", "h1", "ping", f.options()[i], "-c1", "-W5", "h2")
		d.says(a, "h1", "cat", "/etc/hosts")
		d.says("default via", "h1", "ip", f.options()[i], "route")
	}
	d.ok("network", "disconnect", "second", "h1")
	if err := d.lacksInterface("h1", "eth1"); err != nil {
		d.t.Error(err)
	}
	if r := d.exec("h2", "dig", "+short", "hot"); r.stdout != "" {
		d.t.Errorf("the alias stays: %v", r)
	}
	d.ok("network", "connect", "--gw-priority", "5", "second", "h1")
	for _, o := range f.options() {
		d.says("dev eth1", "h1", "ip", o, "route", "show", "default")
	}
}

func familyInternal(d *daemon, f family) {
	d.idle("i1", "--network", "inner")
	d.idle("i2", "--network", "inner")
	for _, o := range f.options() {
		d.says(" 0% packet loss", "i1", "ping", o, "-c1", "-W5", "i2")
		if r := d.exec("i1", "ip", o, "route", "show", "default"); r.stdout != "" {
			d.t.Errorf("%v", r)
		}
	}
	for _, target := range []string{peer4, peer6} {
		if r := d.exec("i1", "ping", "-c1", "-W2", target); r.code == 0 {
			d.t.Errorf("%v", r)
		}
	}
}

func familyLinks(d *daemon, f family) {
	d.idle("l1", "--network", "mynet", "--hostname", "box")
	d.idle("l2", "--network", "mynet", "--link", "l1:friend", "--add-host", "boss:host-gateway")
	for i, a := range f.addresses(d, "l1", "eth0") {
		d.says(a+"\tbox", "l1", "cat", "/etc/hosts")
		d.says(" 0% packet loss", "l2", "ping", f.options()[i], "-c1", "-W5", "friend")
		d.says(" 0% packet loss", "l2", "ping", f.options()[i], "-c1", "-W5", "boss")
	}
}

func familyWanted(d *daemon, f family) {
	args, flags := []string{"network", "create"}, []string{"--network", "wanted"}
	if f.v4 {
		args, flags = append(args, "--subnet", "10.66.0.0/24"), append(flags, "--ip", "10.66.0.66")
	} else {
		args = append(args, "--ipv4=false")
	}
	if f.v6 {
		args, flags = append(args, "--ipv6", "--subnet", "fd66::/64"), append(flags, "--ip6", "fd66::66")
	}
	d.ok(append(args, "wanted")...)
	d.idle("w1", flags...)
	for _, a := range f.addresses(d, "w1", "eth0") {
		if !strings.HasSuffix(a, "66") {
			d.t.Errorf("got %s", a)
		}
	}
	d.idle("w2", "--network", "wanted")
	d.says(" 0% packet loss", "w2", "ping", "-c1", "-W5", "w1")
	out := d.ok("network", "inspect", "-f", "{{range .Containers}}{{.Name}} [{{.IPv4Address}}] [{{.IPv6Address}}]\n{{end}}", "wanted")
	if strings.Contains(out, "10.66.0.66/24") != f.v4 || strings.Contains(out, "fd66::66/64") != f.v6 {
		d.t.Errorf("network inspect: %s", out)
	}
}

func familyRestart(d *daemon, f family) {
	d.idle("r1", "--network", "mynet", "--network", "second")
	d.idle("r2", "--network", "mynet")
	before := append(f.addresses(d, "r1", "eth0"), f.addresses(d, "r1", "eth1")...)
	d.stop(syscall.SIGTERM)
	d.start()
	after := append(f.addresses(d, "r1", "eth0"), f.addresses(d, "r1", "eth1")...)
	if strings.Join(before, " ") != strings.Join(after, " ") {
		d.t.Errorf("addresses were %v and are %v", before, after)
	}
	for _, o := range f.options() {
		eventually(d.t, func() error {
			if r := d.exec("r2", "ping", o, "-c1", "-W5", "r1"); r.code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
}
