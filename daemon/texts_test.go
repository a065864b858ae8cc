package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

const localHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// TestHostsFile compares what follows the lines that all hosts files have.
func TestHostsFile(t *testing.T) {
	gateway := func(addrs ...string) string {
		var b strings.Builder
		for _, name := range hostNames {
			for _, a := range addrs {
				b.WriteString(a + "\t" + name + "\n")
			}
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		on     []string
		change func(*network.Container)
		links  []linkTarget
		want   string
	}{
		"one network":          {on: []string{"open"}, want: "10.1.0.2\twww\n" + gateway("10.1.0.1")},
		"an internal one only": {on: []string{"inner"}, want: "10.1.0.2\twww\n"},
		"no network":           {want: ""},
		"two": {
			on:   []string{"inner", "open"},
			want: "10.1.0.2\twww\n10.2.0.2\twww\n" + gateway("10.2.0.1"),
		},
		"no host name": {
			on:     []string{"open"},
			change: func(c *network.Container) { c.Hostname = "" },
			want:   gateway("10.1.0.1"),
		},
		"a domain": {
			on:     []string{"open"},
			change: func(c *network.Container) { c.Domainname = "example.org" },
			want:   "10.1.0.2\twww.example.org www\n" + gateway("10.1.0.1"),
		},
		"IPv6": {
			on: []string{"open"},
			change: func(c *network.Container) {
				c.Endpoints[0].IPv6 = netip.MustParsePrefix("fd00::2/64")
				c.Endpoints[0].Gateway6 = netip.MustParseAddr("fd00::1")
			},
			want: "10.1.0.2\twww\nfd00::2\twww\n" + gateway("10.1.0.1", "fd00::1"),
		},
		"extra hosts, in order": {
			on: []string{"open"},
			change: func(c *network.Container) {
				c.ExtraHosts = []string{"zz:192.0.2.1", "aa:[2001:db8::1]", "me:host-gateway", "nonsense", "x:y"}
			},
			want: "192.0.2.1\tzz\n2001:db8::1\taa\n10.1.0.1\tme\n10.1.0.2\twww\n" + gateway("10.1.0.1"),
		},
		"an extra host instead of the gateway": {
			on: []string{"open"},
			change: func(c *network.Container) {
				c.ExtraHosts = []string{hostNames[0] + ":192.0.2.1"}
			},
			want: "192.0.2.1\t" + hostNames[0] + "\n10.1.0.2\twww\n10.1.0.1\t" + hostNames[1] + "\n10.1.0.1\t" +
				hostNames[2] + "\n",
		},
		"links, each name once": {
			on: []string{"open"},
			links: []linkTarget{
				{"db", &network.Container{Name: "db", Hostname: "store"},
					[]netip.Addr{netip.MustParseAddr("10.1.0.9")}},
				{"q", &network.Container{Name: "queue"}, []netip.Addr{netip.MustParseAddr("10.1.0.8")}},
			},
			want: "10.1.0.9\tdb store\n10.1.0.8\tq queue\n10.1.0.2\twww\n" + gateway("10.1.0.1"),
		},
	} {
		c, nets := onNetworks(t, test.on...)
		if test.change != nil {
			test.change(c)
		}
		got, ok := strings.CutPrefix(hostsFile(c, nets, test.links), localHosts)
		if !ok || got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

// TestResolvConf has search domains of the host, the daemon and the container: the nearest counts, and a dot is none.
func TestResolvConf(t *testing.T) {
	host := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(host, []byte("nameserver 192.0.2.53\nsearch host.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		daemon []string
		change func(*network.Container)
		want   string
	}{
		"the host's": {want: "nameserver 127.0.0.11\nsearch host.example\noptions ndots:0\n"},
		"the daemon's": {
			daemon: []string{"daemon.example"},
			want:   "nameserver 127.0.0.11\nsearch daemon.example\noptions ndots:0\n",
		},
		"its own": {
			daemon: []string{"daemon.example"},
			change: func(c *network.Container) { c.DNSSearch = []string{"one.example", "two.example"} },
			want:   "nameserver 127.0.0.11\nsearch one.example two.example\noptions ndots:0\n",
		},
		"none": {
			change: func(c *network.Container) { c.DNSSearch = []string{"."} },
			want:   "nameserver 127.0.0.11\noptions ndots:0\n",
		},
		"none of the daemon's": {
			daemon: []string{"."},
			want:   "nameserver 127.0.0.11\noptions ndots:0\n",
		},
		"options": {
			change: func(c *network.Container) { c.DNSOptions = []string{"timeout:1", "ndots:2"} },
			want:   "nameserver 127.0.0.11\nsearch host.example\noptions timeout:1 ndots:2\n",
		},
		"options without ndots": {
			change: func(c *network.Container) { c.DNSOptions = []string{"rotate"} },
			want:   "nameserver 127.0.0.11\nsearch host.example\noptions ndots:0 rotate\n",
		},
		"another address of the server": {
			change: func(c *network.Container) { c.DNSAddr = netip.MustParseAddr("169.254.1.1") },
			want:   "nameserver 169.254.1.1\nsearch host.example\noptions ndots:0\n",
		},
		"no network": {
			change: func(c *network.Container) { c.Endpoints = nil },
			want:   "search host.example\noptions ndots:0\n",
		},
	} {
		d := newConfiguredDaemon(t, Config{ResolvConf: host, DNSSearch: test.daemon})
		c, _ := onNetworks(t, "open")
		if test.change != nil {
			test.change(c)
		}
		_, got, _ := strings.Cut(d.resolvConf(c), "\n")
		if got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

// TestTextsOfContainersThatShareANetwork are those of the owner, and on the host's network there are none.
func TestTextsOfContainersThatShareANetwork(t *testing.T) {
	d, f := newFakeDaemon(t)
	owner, _ := ran(t, d, f, network.ContainerSpec{Name: "owner", Hostname: "box"})
	host, _ := ran(t, d, f, network.ContainerSpec{Name: "host", NetworkMode: network.HostName, Hostname: "own"})
	want, err := d.ContainerFiles("owner")
	if err != nil || want.Hostname != "box" || !strings.HasPrefix(want.Hosts, localHosts) || want.ResolvConf == "" {
		t.Fatalf("%+v, %v", want, err)
	}
	for _, test := range []struct {
		name string
		spec network.ContainerSpec
		want api.StartReply
	}{
		{"host", network.ContainerSpec{}, api.StartReply{Hostname: "own"}},
		{"guest", network.ContainerSpec{NetworkMode: "container:" + owner.Name}, want},
		{"guest-of-host", network.ContainerSpec{NetworkMode: "container:" + host.Name}, api.StartReply{}},
	} {
		if test.name != "host" {
			test.spec.Name = test.name
			if _, _, err := d.CreateContainer(t.Context(), test.spec); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := d.ContainerFiles(test.name); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v\nwant %+v", test.name, got, err, test.want)
		}
	}
}

// TestInterfacesGoFromSandboxesThatOthersShare has the owner of a network end while another container goes on in it.
func TestInterfacesGoFromSandboxesThatOthersShare(t *testing.T) {
	d, f := newFakeDaemon(t)
	owner, _ := ran(t, d, f, network.ContainerSpec{Name: "owner"})
	ran(t, d, f, network.ContainerSpec{Name: "guest", NetworkMode: "container:owner"})
	f.asked()
	if err := d.ContainerExited(t.Context(), owner.ID, 0); err != nil {
		t.Fatal(err)
	}
	if got := f.asked(); got != "remove eth0" {
		t.Errorf("in the sandbox: %q", got)
	}
	alone, _ := ran(t, d, f, network.ContainerSpec{Name: "alone"})
	f.asked()
	if err := d.ContainerExited(t.Context(), alone.ID, 0); err != nil {
		t.Fatal(err)
	}
	if got := f.asked(); got != "" {
		t.Errorf("in a sandbox that has ended: %q", got)
	}
}
