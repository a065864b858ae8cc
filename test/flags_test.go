package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write puts text into a file of the test, and returns its path.
func (d *daemon) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func TestEnvironmentAndLabelsFromFiles(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	env := d.write("env", "# comment\nFIRST=1\n  SECOND=two words\n\nLC_ALL\nNOT_SET_ANYWHERE\n")
	out := d.ok("run", "--rm", "--env-file", env, "-e", "FIRST=over", "--", "env")
	for _, want := range []string{"FIRST=over\n", "SECOND=two words\n", "LC_ALL=C\n"} {
		if !strings.Contains(out+"\n", want) {
			t.Errorf("the environment lacks %q: %s", want, out)
		}
	}
	if strings.Contains(out, "NOT_SET_ANYWHERE") || strings.Contains(out, "FIRST=1\n") {
		t.Errorf("the environment has too much: %s", out)
	}
	d.fails("contains whitespaces", "run", "--rm", "--env-file", d.write("bad", "A B=c\n"), "--", "true")
	d.idle("c1", "--label-file", d.write("labels", "team=a\ntier=db\n"), "-l", "tier=web")
	if out := d.ok("inspect", "-f", "{{index .Config.Labels \"team\"}} {{index .Config.Labels \"tier\"}}", "c1"); out != "a web" {
		t.Errorf("labels are %q", out)
	}
	if out := d.ok("ps", "-q", "--filter", "label=tier=web"); out == "" {
		t.Error("ps does not find the label")
	}
}

func TestLinkEnvironment(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("tomcat81", "--expose", "80", "--expose", "8000-8002", "--expose", "53/udp", "-e", "COLOUR=blue")
	d.container("tomcat82", []string{"--link", "tomcat81:my-app", "--link", "tomcat81"}, "sh", "-c",
		"env; echo that is all; exec sleep 1000000")
	ip := d.address("tomcat81")
	d.says(" 0% packet loss", "tomcat82", "ping", "-c1", "-W5", "my-app")
	d.says(" 0% packet loss", "tomcat82", "ping", "-c1", "-W5", "tomcat81")
	if r := d.exec("tomcat81", "ping", "-c1", "-W2", "tomcat82"); r.code == 0 {
		t.Errorf("the link works in both directions: %v", r)
	}
	environ := d.logged("tomcat82", "that is all")
	for _, want := range []string{
		"MY_APP_NAME=/tomcat82/my-app", "MY_APP_ENV_COLOUR=blue",
		"MY_APP_PORT=tcp://" + ip + ":80", "MY_APP_PORT_80_TCP=tcp://" + ip + ":80", "MY_APP_PORT_80_TCP_ADDR=" + ip,
		"MY_APP_PORT_80_TCP_PORT=80", "MY_APP_PORT_80_TCP_PROTO=tcp", "MY_APP_PORT_53_UDP=udp://" + ip + ":53",
		"MY_APP_PORT_8000_TCP_PORT_START=8000", "MY_APP_PORT_8000_TCP_PORT_END=8002", "MY_APP_PORT_8001_TCP_ADDR=" + ip,
		"TOMCAT81_PORT_80_TCP_ADDR=" + ip,
	} {
		if !strings.Contains("\n"+environ, "\n"+want+"\n") {
			t.Errorf("the environment lacks %s: %s", want, environ)
		}
		d.says(want+"\n", "tomcat82", "env")
	}
	if out := d.ok("exec", "-e", "MY_APP_NAME=mine", "tomcat82", "env"); strings.Count("\n"+out, "\nMY_APP_NAME=") !=
		1 || !strings.Contains(out, "MY_APP_NAME=mine") {
		t.Errorf("-e does not replace a link's variable: %s", out)
	}
	if r := d.exec("tomcat81", "env"); strings.Contains(r.stdout, "TOMCAT82") {
		t.Errorf("the link gives variables in both directions: %v", r)
	}
	d.fails("could not get container for nobody: No such container: nobody", "run", "--rm", "--link", "nobody", "--", "true")
	d.ok("stop", "-t0", "tomcat81")
	d.fails("Cannot link to a non running container: /tomcat81 AS /x1/tomcat81", "run", "--rm", "--name", "x1", "--link", "tomcat81", "--", "true")
	d.fails("host type networking can't be used with links", "run", "--rm", "--network", "host", "--link", "tomcat82",
		"--", "true")
}

func TestLinksFollowTheirTargets(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("db")
	d.idle("filler")
	d.idle("web", "--link", "db:store")
	hosts := func(want bool, address string) {
		t.Helper()
		eventually(t, func() error {
			if text := d.exec("web", "cat", "/etc/hosts").stdout; strings.Contains(text, address+"\tstore") != want {
				return fmt.Errorf("wanted %s store %v: %s", address, want, text)
			}
			return nil
		})
	}
	first := d.address("db")
	hosts(true, first)
	d.ok("network", "disconnect", "bridge", "db")
	hosts(false, first)
	d.ok("network", "connect", "bridge", "db")
	hosts(true, first)
	d.ok("rm", "-f", "db")
	hosts(false, first)
	d.idle("taker") // of the address
	d.idle("db")
	if d.address("db") == first {
		t.Fatal("the address is the old one")
	}
	hosts(true, d.address("db"))
	d.says(" 0% packet loss", "web", "ping", "-c1", "-W5", "store")
}

func TestLinkOnAUserDefinedNetworkIsThisContainersOwn(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("db", "--network", "mynet")
	d.idle("web", "--network", "mynet", "--link", "db:store")
	d.idle("other", "--network", "mynet")
	d.says(" 0% packet loss", "web", "ping", "-c1", "-W5", "store")
	if r := d.exec("other", "ping", "-c1", "-W2", "store"); r.code == 0 {
		t.Errorf("another container sees the link's alias: %v", r)
	}
	d.ok("network", "create", "second")
	d.ok("network", "connect", "second", "db")
	d.ok("network", "connect", "--link", "db:again", "--alias", "me", "second", "other")
	d.says(" 0% packet loss", "other", "ping", "-c1", "-W5", "again")
	d.says(" 0% packet loss", "db", "ping", "-c1", "-W5", "me")
}

func TestResolverAndHostsFlags(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("c1", "--add-host", "peer:192.0.2.100", "--add-host", "six=[2001:db8::100]", "--add-host",
		"boss:host-gateway",
		"--dns", resolver, "--dns-search", "example.org", "--dns-option", "timeout:3", "--hostname", "box",
		"--domainname", "lan")
	hosts := d.exec("c1", "cat", "/etc/hosts").stdout
	for _, want := range []string{"192.0.2.100\tpeer\n", "2001:db8::100\tsix\n", d.gateway("c1") + "\tboss\n",
		d.address("c1") + "\tbox.lan box\n"} {
		if !strings.Contains(hosts, want) {
			t.Errorf("/etc/hosts lacks %q: %s", want, hosts)
		}
	}
	conf := d.exec("c1", "cat", "/etc/resolv.conf").stdout
	for _, want := range []string{"search example.org\n", "timeout:3"} {
		if !strings.Contains(conf, want) {
			t.Errorf("/etc/resolv.conf lacks %q: %s", want, conf)
		}
	}
	d.says(d.gateway("c1"), "c1", "getent", "hosts", "boss")
	for _, bad := range []string{"peer", "peer:", "peer:1.2.3", ":1.2.3.4"} {
		d.fails("add-host", "run", "--rm", "--add-host", bad, "--", "true")
	}
}

func TestAddressFlags(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "--aux-address",
		"router=10.77.0.2", "both")
	d.ok("network", "create", "--subnet", "10.78.0.0/24", "--ip-range", "10.78.0.128/25", "--gateway", "10.78.0.254",
		"second")
	d.idle("c1", "--network", "name=both,ip=10.77.0.9,ip6=fd77::9,mac-address=02:00:00:00:00:09,alias=nine,link-local-ip=169.254.7.9",
		"--network", "name=second,gw-priority=1")
	d.says("10.77.0.9/24", "c1", "ip", "addr", "show", "eth0")
	d.says("fd77::9/64", "c1", "ip", "addr", "show", "eth0")
	d.says("169.254.7.9/", "c1", "ip", "addr", "show", "eth0")
	d.says("02:00:00:00:00:09", "c1", "ip", "addr", "show", "eth0")
	d.says("10.78.0.128/24", "c1", "ip", "addr", "show", "eth1")
	d.says("default via 10.78.0.254 dev eth1", "c1", "ip", "route")
	d.idle("c2", "--network", "both", "--ip6", "fd77::a", "--link-local-ip", "169.254.7.10", "--network-alias", "ten")
	d.says("10.77.0.3/24", "c2", "ip", "addr", "show", "eth0") // the first that is neither the gateway's nor auxiliary
	d.says(" 0% packet loss", "c2", "ping", "-c1", "-W5", "nine")
	d.says(" 0% packet loss", "c1", "ping", "-c1", "-W5", "fd77::a")
	d.says(" 0% packet loss", "c1", "ping", "-c1", "-W5", "ten")
	d.says(" 0% packet loss", "c2", "ping", "-c1", "-W5", "169.254.7.9")

	run := func(words string, flags ...string) {
		t.Helper()
		d.fails(words, append(append([]string{"run", "--rm"}, flags...), "--", "true")...)
	}
	run("Address already in use", "--network", "both", "--ip", "10.77.0.9")
	run("Address already in use", "--network", "both", "--ip", "10.77.0.2")
	run("Address already in use", "--network", "both", "--link-local-ip", "169.254.7.9")
	run("no configured subnet contains IP address 10.99.0.1", "--network", "both", "--ip", "10.99.0.1")
	run("invalid IPv4 address: fd77::9", "--network", "both", "--ip", "fd77::9")
	run("invalid IPv6 address: 10.77.0.7", "--network", "both", "--ip6", "10.77.0.7")
	run("conflicting options: cannot specify both --ip and per-network IPv4 address", "--network", "name=both,ip=10.77.0.20", "--ip", "10.77.0.21")
	run("conflicting options: cannot specify both --network-alias and per-network alias", "--network", "name=both,alias=a", "--network-alias", "b")
	run("conflicting options: cannot attach both user-defined and non-user-defined network-modes", "--network", "both", "--network", "none")
	run("network \"both\" is specified multiple times", "--network", "both", "--network", "both")
	run("invalid field key colour", "--network", "name=both,colour=red")
	run("network name/id is not specified", "--network", "alias=red")
	run("network-scoped aliases are only supported for user-defined networks", "--network-alias", "x")
}

func TestPublishAll(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.serve("web", []string{"-P", "--expose", "80", "--expose", "90/udp"}, helper, "tcpserve", ":80", "addr")
	lines := strings.Split(d.ok("port", "web"), "\n")
	if len(lines) != 4 {
		t.Errorf("two exposed ports in two families make %q", lines)
	}
	one := strings.Split(d.ok("port", "web", "80"), "\n")[0]
	if !strings.HasPrefix(one, "0.0.0.0:") {
		t.Errorf("port web 80 prints %q", one)
	}
	d.fails("no public port '81/tcp' published for web", "port", "web", "81/tcp")
}
