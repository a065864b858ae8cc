package pasta

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// calls are command lines of Podman and RootlessKit, as recorded, and of Podman's own tests, with what they mean.
var calls = []struct {
	args string
	ok   func(*Options) bool
}{
	{"--config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw --quiet --netns /run/netns/x --map-guest-addr 169.254.1.2",
		func(o *Options) bool {
			return o.ConfigNet && o.DNSForward[v4] == netip.MustParseAddr("169.254.1.1") && o.TCP.Mode == ModeNone &&
				o.UDP.Mode == ModeNone && o.TCPNS.Mode == ModeNone && o.UDPNS.Mode == ModeNone && o.NoMapGateway &&
				o.Quiet &&
				o.NetNS == "/run/netns/x" && o.MapGuestAddr[v4] == netip.MustParseAddr("169.254.1.2") && o.MTU ==
				65520 && o.IPv4 && o.IPv6
		}},
	{"--config-net -t 18380-18380:80-80 -u 127.0.0.1/18300-18302:9000-9002 -T none -U none --netns /x", func(o *Options) bool {
		return slices.Equal(o.TCP.Ranges, []Range{{First: 18380, Last: 18380, To: 80}}) &&
			slices.Equal(o.UDP.Ranges, []Range{{Addr: netip.MustParseAddr("127.0.0.1"), First: 18300, Last: 18302,
				To: 9000}})
	}},
	{"--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 " +
		"--no-map-gw --ipv4-only --tcp-ports=none --udp-ports=none --host-lo-to-ns-lo 4711", func(o *Options) bool {
		return o.Interface == "tap0" && o.Addrs[v4] == netip.MustParseAddr("10.0.2.100") && o.Netmask == 24 &&
			!o.IPv6 &&
			o.Gateways[v4] == netip.MustParseAddr("10.0.2.2") && o.HostLoToNSLo && o.PID == 4711
	}},
	{"--config-net --tcp-ports=auto --udp-ports=auto --userns=/proc/1/ns/user --netns=/proc/1/root/x", func(o *Options) bool {
		return o.TCP.Mode == ModeAuto && o.UDP.Mode == ModeAuto && o.UserNS != ""
	}},
	{"--config-net -T 8099 --ipv4-only --mtu 1400 -I foo0 --pid /x/pid --netns /x", func(o *Options) bool {
		return slices.Equal(o.TCPNS.Ranges, []Range{{First: 8099, Last: 8099, To: 8099}}) && o.MTU == 1400 &&
			o.PIDFile == "/x/pid"
	}},
	{"-a 192.0.2.1 -a 2001:db8::1 -n 255.255.255.0 -g 192.0.2.2 -g fe80::1 -m 0 -6 1", func(o *Options) bool {
		return o.Addrs[v6] == netip.MustParseAddr("2001:db8::1") && o.Netmask == 24 && o.Gateways[v6].IsValid() &&
			o.MTU == 0 && !o.IPv4
	}},
	{"-4 -6 -o 127.0.0.1 --dns-host ::1 1", func(o *Options) bool { // the last of both counts
		return !o.IPv4 && o.IPv6 && o.Outbound[v4].IsLoopback() && o.DNSHost[v6].IsLoopback()
	}},
	{"--ipv6-only --ipv4-only 1", func(o *Options) bool { return o.IPv4 && !o.IPv6 }},
	{"--map-host-loopback none 1", func(o *Options) bool { return o.NoMapGateway && o.NoMapLoopback }},
	{"-D none -D 192.0.2.53 -S a.example -S none 1",
		func(o *Options) bool { return len(o.DNS) == 1 && !o.NoDNS && o.NoSearch }},
	{"-f sh -c true", func(o *Options) bool {
		return slices.Equal(o.Command, []string{"sh", "-c", "true"}) &&
			o.Foreground
	}},
	{"", func(o *Options) bool { return o.PID == 0 && o.Command == nil }},
	{"--host-lo-to-ns-lo --version", func(o *Options) bool { return o.Version }},
	{"--help", func(o *Options) bool { return o.Help }},
}

func TestCommandLinesOfRuntimesAreRead(t *testing.T) {
	for _, c := range calls {
		t.Run(c.args, func(t *testing.T) {
			o, err := Parse(strings.Fields(c.args))
			if err != nil {
				t.Fatal(err)
			}
			if !c.ok(o) {
				t.Errorf("read as %+v", o)
			}
		})
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--frobnicate 1", "unrecognized option '--frobnicate"},
		{"--map-gw 1", "unrecognized option '--map-gw"},
		{"-y 1", "invalid option -- 'y'"},
		{"-m 65536 1", "invalid MTU"},
		{"-m x 1", "invalid MTU"},
		{"-m 65522 1", "invalid MTU"},
		{"-t all 1", "all is passt's"},
		{"-t ~1-65535 1", "no port is left"},
		{"-t 80-90,~1-100 1", "no port is left"},
		{"--no-tcp -t 80 1", "switched off"},
		{"--no-udp -U auto 1", "switched off"},
		{"--no-copy-routes 1", "need --config-net"},
		{"-a x 1", "invalid address: x"},
		{"-a 224.0.0.1 1", "others can reach"},
		{"-a 127.0.0.1 1", "others can reach"},
		{"-g ::1 1", "others can reach"},
		{"-o ::1 1", "others can reach"},
		{"--dns-forward 127.0.0.1 1", "others can reach"},
		{"--map-guest-addr 255.255.255.255 1", "others can reach"},
		{"--map-host-loopback 0.0.0.0 1", "others can reach"},
		{"-n 33 1", "invalid netmask"},
		{"-n 255.0.255.0 1", "invalid netmask"},
		{"-M 01:00:5e:00:00:01 1", "invalid mac-addr"},
		{"--ns-mac-addr 02:00 1", "invalid ns-mac-addr"},
		{"-D x 1", "cannot parse DNS address x"},
		{"-I 0123456789abcdef 1", "15 characters"},
		{"--netns /x 1", "both --netns and PID"},
		{"--netns /x sh -c true", "a command starts in namespaces of its own"},
		{"-1 1", "serves a virtual machine; usernet takes pasta's place, not passt's"},
		{"--fd 3 1", "serves a virtual machine; usernet takes pasta's place, not passt's"},
		{"--vhost-user 1", "serves a virtual machine; usernet takes pasta's place, not passt's"},
		{"-t none -t 80 1", "contradicts"},
	} {
		t.Run(c.args, func(t *testing.T) {
			o, err := Parse(strings.Fields(c.args))
			if err == nil {
				t.Fatalf("read as %+v", o)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
		})
	}
}

// TestPortSpecifiers has the examples of pasta's manual.
func TestPortSpecifiers(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		spec string
		want []Range
	}{
		{"22", []Range{{First: 22, Last: 22, To: 22}}},
		{"22:23", []Range{{First: 22, Last: 22, To: 23}}},
		{"22,25", []Range{{First: 22, Last: 22, To: 22}, {First: 25, Last: 25, To: 25}}},
		{"22-80", []Range{{First: 22, Last: 80, To: 22}}},
		{"22-80:32-90", []Range{{First: 22, Last: 80, To: 32}}},
		{"192.0.2.1/22", []Range{{Addr: addr, First: 22, Last: 22, To: 22}}},
		{"192.0.2.1%eth0/22", []Range{{Addr: addr, Interface: "eth0", First: 22, Last: 22, To: 22}}},
		{"%eth0/22", []Range{{Interface: "eth0", First: 22, Last: 22, To: 22}}},
		{"2000-5000,~3000-3010", []Range{{First: 2000, Last: 2999, To: 2000}, {First: 3011, Last: 5000, To: 3011}}},
		{"192.0.2.1/20-30,~25", []Range{{Addr: addr, First: 20, Last: 24, To: 20},
			{Addr: addr, First: 26, Last: 30, To: 26}}},
		{"20-30:120-130,~25", []Range{{First: 20, Last: 24, To: 120}, {First: 26, Last: 30, To: 126}}},
		{"::1/80", []Range{{Addr: netip.IPv6Loopback(), First: 80, Last: 80, To: 80}}},
		{"[::1]/80", []Range{{Addr: netip.IPv6Loopback(), First: 80, Last: 80, To: 80}}},
	} {
		t.Run(c.spec, func(t *testing.T) {
			var p Ports
			if err := p.Set(c.spec); err != nil {
				t.Fatal(err)
			}
			if p.Mode != ModeList || !slices.Equal(p.Ranges, c.want) {
				t.Errorf("got %+v, want %+v", p.Ranges, c.want)
			}
		})
	}
	var all Ports
	low, _ := ephemeral()
	if err := all.Set("~20000-20010"); err != nil || len(all.Ranges) != 2 || !all.Ranges[0].Weak ||
		all.Ranges[0].Last != 19999 || all.Ranges[1].First != 20011 || all.Ranges[1].Last != low-1 {
		t.Errorf("~20000-20010 is %+v, %v", all, err)
	}
	for _, bad := range []string{"", "x", "0", "65536", "80-22", "22-80:32-33", "80:", ":80", "80,80", "20-30,25",
		"all", "/80", "%/80", "x/80", "80,", "~", "1.2.3.4"} {
		if err := new(Ports).Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// FuzzPorts holds what is accepted to its rules: no port twice, no range reversed, targets that exist.
func FuzzPorts(f *testing.F) {
	for _, s := range []string{"22", "2000-5000,~3000-3010", "192.0.2.1%eth0/22-80:32-90", "~1-10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		var p Ports
		if p.Set(spec) != nil {
			return
		}
		seen := map[uint16]bool{}
		for _, r := range p.Ranges {
			if r.First == 0 || r.Last < r.First || r.To == 0 || uint32(r.To)+uint32(r.Last-r.First) > 65535 {
				t.Fatalf("%q: %+v", spec, r)
			}
			for port := uint32(r.First); port <= uint32(r.Last); port++ {
				if seen[uint16(port)] {
					t.Fatalf("%q has port %d twice", spec, port)
				}
				seen[uint16(port)] = true
			}
		}
	})
}
