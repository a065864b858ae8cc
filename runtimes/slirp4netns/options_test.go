package slirp4netns

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// calls are command lines of Podman and RootlessKit, as recorded, with what they mean.
var calls = []struct {
	args string
	ok   func(*Options) bool
}{
	{"--disable-host-loopback --mtu=65520 --enable-sandbox --enable-seccomp --enable-ipv6 -c -e 3 -r 4 --netns-type=path /proc/self/ns/net tap0",
		func(o *Options) bool {
			return o.DisableHostLoopback && o.MTU == 65520 && o.Sandbox && o.Seccomp && o.IPv6 && o.Configure &&
				o.ExitFD == 3 && o.ReadyFD == 4 && o.NetNSType == netnsPath && o.Target == "/proc/self/ns/net" &&
				o.TAP == "tap0"
		}},
	{"--mtu 65520 -r 3 4711 tap0", func(o *Options) bool {
		return o.NetNSType == netnsPID && o.Target == "4711" && o.ReadyFD == 3 && o.ExitFD == -1 && !o.Configure
	}},
	{"--mtu 1500 -r 3 --disable-host-loopback --cidr 10.77.0.0/24 --enable-sandbox --enable-seccomp --enable-ipv6 4711 tap0",
		func(o *Options) bool {
			return o.Plan.Gateway == netip.MustParseAddr("10.77.0.2") && o.Plan.DNS ==
				netip.MustParseAddr("10.77.0.3") &&
				o.Plan.Guest == netip.MustParseAddr("10.77.0.100") && o.Plan.DHCPFirst ==
				netip.MustParseAddr("10.77.0.15") &&
				o.Plan.DHCPLast == netip.MustParseAddr("10.77.0.30")
		}},
	{"--mtu 65520 -r 3 --enable-ipv6 --userns-path=/proc/self/ns/user --netns-type=path /proc/self/ns/net tap0",
		func(o *Options) bool { return o.UserNSPath == "/proc/self/ns/user" }},
	{"-c --outbound-addr=lo --outbound-addr6=::1 1 tap0", func(o *Options) bool {
		return o.Outbound4 == netip.MustParseAddr("127.0.0.1") && o.Outbound6 == netip.IPv6Loopback()
	}},
	{"-c --macaddress 02:00:00:00:00:01 1 tap0",
		func(o *Options) bool { return o.MAC.String() == "02:00:00:00:00:01" }},
	{"-ce3 -r4 -6m 1400 1 tap0", func(o *Options) bool {
		return o.Configure && o.ExitFD == 3 && o.ReadyFD == 4 && o.IPv6 && o.MTU == 1400
	}},
	{"1 tap0 surplus", func(o *Options) bool { return len(o.Warnings) == 1 }},
	{"--no-host-loopback --create-sandbox 1 tap0", func(o *Options) bool {
		return o.DisableHostLoopback && o.Sandbox && len(o.Warnings) == 2
	}},
	{"--target-type=bess /tmp/bess.sock",
		func(o *Options) bool { return o.TargetType == targetBESS && o.Target == "/tmp/bess.sock" }},
	{"--netns-type=tapfd 5", func(o *Options) bool { return o.Target == "5" && o.TAP == "" }},
	{"-h", func(o *Options) bool { return o.Help }},
	{"--version", func(o *Options) bool { return o.Version }},
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

func TestBadCommandLinesAreRefusedInSlirp4netnsWords(t *testing.T) {
	for _, c := range []struct {
		args, want string
		usage      bool // the usage text belongs behind the error
	}{
		{"", "give a process id", true},
		{"1", "name of the interface", true},
		{"x tap0", "PID must be a positive integer", true},
		{"-1 tap0", "invalid option -- '1'", true},
		{"--netns-type=path /nowhere tap0", "existing path expected when --netns-type=path", true},
		{"--userns-path=/nowhere 1 tap0", "userns path doesn't exist: /nowhere", true},
		{"-e x 1 tap0", "exit-fd must be a non-negative integer", true},
		{"-r -2 1 tap0", "ready-fd must be a non-negative integer", true},
		{"-m 65522 1 tap0", "MTU must be a positive integer (< 65522)", true},
		{"-m 0 1 tap0", "MTU must be a positive integer (< 65522)", true},
		{"-m 67 1 tap0", "MTU must be 68 at least", true},
		{"-c --cidr 24 1 tap0", "invalid CIDR", false},
		{"-c --cidr foo 1 tap0", "invalid CIDR", false},
		{"-c --cidr 10.0.2.0 1 tap0", "invalid CIDR", false},
		{"-c --cidr fd00::/64 1 tap0", "invalid CIDR", false},
		{"-c --cidr 10.0.2.100/24 1 tap0", "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24", false},
		{"-c --cidr 10.0.2.100/26 1 tap0", "prefix length needs to be 1-25", false},
		{"-c --outbound-addr=nowhere0 1 tap0", "outbound-addr has to be valid ipv4 address or interface name", false},
		{"-c --outbound-addr=::1 1 tap0", "outbound-addr has to be valid ipv4 address or interface name", false},
		{"-c --outbound-addr6=10.0.0.1 1 tap0", "outbound-addr6 has to be valid ipv6 address or interface name", false},
		{"--macaddress 02:00:00:00:00:01 1 tap0", "--macaddress cannot be specified when", true},
		{"-c --macaddress 02:00:00 1 tap0", "invalid MAC address", false},
		{"-c --macaddress 01:00:5e:00:00:01 1 tap0", "invalid MAC address", false},
		{"--target-type=bess -c /tmp/x", "--configure conflicts with --target-type=bess", true},
		{"--target-type=bess --netns-type=pid /tmp/x", "--netns-type conflicts with --target-type=bess", true},
		{"--target-type=bess /tmp/x y", "too many arguments", true},
		{"--target-type=tape 1 tap0", "--target-type must be either", true},
		{"--frobnicate 1 tap0", "unrecognized option '--frobnicate'", true},
	} {
		t.Run(c.args, func(t *testing.T) {
			o, err := Parse(strings.Fields(c.args))
			if err == nil {
				t.Fatalf("read as %+v", o)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
			if errors.As(err, new(UsageError)) != c.usage {
				t.Errorf("usage behind %q: %v, want %v", err, !c.usage, c.usage)
			}
		})
	}
}

// TestHelpNamesWhatRuntimesLookFor: a word that Podman or RootlessKit misses switches a feature off without a message.
func TestHelpNamesWhatRuntimesLookFor(t *testing.T) {
	text := Usage("slirp4netns")
	for _, word := range []string{
		"--disable-host-loopback", "--mtu", "--enable-sandbox", "--enable-seccomp", "--cidr", "--outbound-addr",
		"--enable-ipv6",
		"--netns-type", "--api-socket", "--userns-path", "--macaddress", "--target-type", "--disable-dns", "--exit-fd",
		"--ready-fd",
	} {
		if !strings.Contains(text, word) {
			t.Errorf("--help lacks %s:\n%s", word, text)
		}
	}
	if strings.Contains(text, "create-sandbox") {
		t.Error("--help shows a withdrawn flag")
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range calls {
		f.Add(c.args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		o, err := Parse(strings.Fields(args))
		if err == nil && !o.Help && !o.Version &&
			(o.MTU < minMTU || o.MTU > maxMTU || !o.Plan.Network.Contains(o.Plan.Guest)) {
			t.Errorf("accepted %+v", o)
		}
	})
}
