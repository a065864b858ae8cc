package test

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestContainersPingEachOtherByName(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("one", "--network", "mynet", "--hostname", "first", "--network-alias", "uno")
	d.idle("two", "--network", "mynet")
	for _, name := range []string{"one", "first", "uno", "one.mynet"} {
		d.says(" 0% packet loss", "two", "ping", "-c1", "-W5", name)
	}
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "two")
}

func TestEmbeddedResolver(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "mynet")
	id := d.idle("one", "--network", "mynet", "--network-alias", "uno")
	d.idle("two", "--network", "mynet")
	four, six := d.address("one"), d.address6("one")
	if four == "" || six == "" {
		t.Fatalf("one has the addresses %q and %q", four, six)
	}
	for _, test := range []struct{ name, question, want string }{
		{"A of a container", "one A +short", four},
		{"A with the network's name", "one.mynet A +short", four},
		{"A of an alias", "uno A +short", four},
		{"A of the short id", id[:12] + " A +short", four},
		{"AAAA of a container", "one AAAA +short", six},
		{"letters' case does not matter", "ONE A +short", four},
		{"MX of a container is empty, not an error", "one MX", "status: NOERROR"},
		{"PTR", "-x " + four + " +short", "one.mynet."},
		{"PTR of IPv6", "-x " + six + " +short", "one.mynet."},
		{"over TCP", "one A +tcp +short", four},
		{"A of the outside", "www.example.test A +short", host4},
		{"AAAA of the outside", "www.example.test AAAA +short", host6},
		{"CNAME of the outside", "alias.example.test A +short", host4},
		{"PTR of the outside", "-x 192.0.2.100 +short", "peer.example.test."},
		{"a name that nobody has", "nothing.example.test A", "status: NXDOMAIN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := d.in(t)
			r := d.exec("two", append([]string{"dig", "+time=3"}, strings.Fields(test.question)...)...)
			if r.code != 0 || !strings.Contains(r.stdout, test.want) {
				t.Errorf("want %q: %v", test.want, r)
			}
		})
	}
}

func TestNamesFollowContainers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("one", "--network", "mynet")
	d.idle("two", "--network", "mynet")
	d.says(d.address("two"), "one", "dig", "+short", "two")
	d.ok("rm", "-f", "two")
	if r := d.exec("one", "dig", "+short", "two"); strings.TrimSpace(r.stdout) != "" {
		t.Errorf("a removed container's name still resolves: %v", r)
	}
	d.idle("three", "--network", "mynet", "--network-alias", "two")
	d.says(d.address("three"), "one", "dig", "+short", "two")
}

func TestDefaultBridgeResolvesNoNames(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("one")
	d.idle("two")
	if got := d.address("one"); got != "172.17.0.2" {
		t.Errorf("the first container's address is %s", got)
	}
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "172.17.0.3")
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "172.17.0.1")
	if r := d.exec("one", "ping", "-c1", "-W5", "two"); r.code == 0 {
		t.Errorf("the default bridge resolves container names: %v", r)
	}
	d.says(host4, "one", "dig", "+short", "www.example.test")
}

func TestInternalNetworkHasNoWayOut(t *testing.T) {
	d := startDaemon(t)
	listen(t, host4+":8601", echo)
	d.ok("network", "create", "--internal", "inside")
	d.idle("one", "--network", "inside")
	d.idle("two", "--network", "inside")
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "two")
	d.says("ENETUNREACH", "one", helper, "tcpdial", host4+":8601")
	before := queries.Load()
	if r := d.exec("one", "dig", "+time=2", "+tries=1", "+short", "www.example.test"); strings.Contains(r.stdout,
		host4) {
		t.Errorf("an internal network resolves outside names: %v", r)
	}
	if queries.Load() != before {
		t.Error("a query from an internal network reached the host's resolver")
	}
}

func TestContainersOwnFiles(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.idle("one", "--network", "mynet", "--hostname", "first", "--add-host", "db:10.1.2.3")
	d.says("first", "one", "hostname")
	d.says(d.address("one")+"\tfirst", "one", "cat", "/etc/hosts")
	d.says("10.1.2.3\tdb", "one", "cat", "/etc/hosts")
	d.says("127.0.0.1\tlocalhost", "one", "cat", "/etc/hosts")
	d.says("nameserver 127.0.0.11", "one", "cat", "/etc/resolv.conf")
	d.says("search example.test", "one", "cat", "/etc/resolv.conf")
	if text := asRoot(t, "cat /etc/resolv.conf"); strings.Contains(text, "127.0.0.11") {
		t.Error("the sandbox changed the host's resolv.conf")
	}
}

// TestLinksOnTheDefaultBridge is Docker's transcript: addresses work, names only through a link, and
// only in its direction.
func TestLinksOnTheDefaultBridge(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("tomcat81")
	d.idle("tomcat82", "--link", "tomcat81")
	d.says(" 0% packet loss", "tomcat81", "ping", "-c1", "-W5", d.address("tomcat82"))
	d.says(" 0% packet loss", "tomcat82", "ping", "-c1", "-W5", "tomcat81")
	if r := d.exec("tomcat81", "ping", "-c1", "-W2", "tomcat82"); r.code == 0 {
		t.Errorf("a link works backwards: %v", r)
	}
	d.says(d.address("tomcat81")+"\ttomcat81", "tomcat82", "cat", "/etc/hosts")
}

// TestHostWithoutHostsFile takes /etc/hosts from a host: its containers have both files of their own all the same.
func TestHostWithoutHostsFile(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	r := d.command("unshare", "--user", "--map-root-user", "--mount", "sh", "-e", "-c", `
		cp -r /etc "$1" 2>/dev/null || test -d "$1"
		rm "$1/hosts"
		: >"$1/resolv.conf"
		mount --rbind "$1" /etc
		exec "$0" run --rm --name box --network mynet -- cat /etc/resolv.conf /etc/hosts`,
		usernet, filepath.Join(t.TempDir(), "etc"))
	if r.code != 0 || !strings.Contains(r.stdout, "nameserver 127.0.0.11") || !strings.Contains(r.stdout, "localhost") {
		t.Errorf("the container's files: %v", r)
	}
}
