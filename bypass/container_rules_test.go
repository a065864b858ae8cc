package bypass

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
	"github.com/usernet/usernet/switch/tap"
)

// ruleCases are what a container may do to its namespace, and whether a connection past its TAPs would not meet it.
var ruleCases = []struct {
	name   string
	script string
	counts bool
}{
	{"nothing", "", false},
	{"an empty table", "nft add table inet own", false},
	{"an empty chain", "nft 'add table inet own; add chain inet own in { type filter hook input priority 0; }'", false},
	{"a chain that drops", "nft 'add table inet own; add chain inet own in { type filter hook input priority 0; policy drop; }'", true},
	{"a filter", "nft 'add table ip own; add chain ip own in { type filter hook input priority 0; }; add rule ip own in iifname eth0 tcp dport 80 drop'", true},
	{"a filter for IPv6", "nft 'add table ip6 own; add chain ip6 own in { type filter hook input priority 0; }; add rule ip6 own in drop'", true},
	{"a filter by iptables-nft", "iptables-nft -A INPUT -i eth0 -p tcp --dport 80 -j DROP", true},
	{"a redirection", "nft 'add table ip own; add chain ip own pre { type nat hook prerouting priority -100; }; add rule ip own pre tcp dport 80 redirect to :81'", true},
	{"destination NAT of its own connections", "nft 'add table ip own; add chain ip own out { type nat hook output priority -100; }; add rule ip own out ip daddr 192.0.2.1 dnat to 192.0.2.2'", true},
	{"masquerading", "nft 'add table ip own; add chain ip own post { type nat hook postrouting priority 100; }; add rule ip own post oifname eth0 masquerade'", true},
	{"masquerading of a network behind", "nft 'add table ip own; add chain ip own post { type nat hook postrouting priority 100; }; add rule ip own post ip saddr 192.168.77.0/24 masquerade'", false},
	{"a filter for what is forwarded", "nft 'add table ip own; add chain ip own through { type filter hook forward priority 0; policy drop; }; add rule ip own through accept'", false},
	{"a filter at ingress", "nft 'add table netdev own; add chain netdev own in { type filter hook ingress device eth0 priority 0; }; add rule netdev own in drop'", true},
	{"usernet's own tables", "nft 'add table ip usernet-dns; add chain ip usernet-dns in { type filter hook input priority 300; }; add rule ip usernet-dns in accept'", false},
	{"a queue", "tc qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 50ms", true},
	{"a filter on frames", "tc qdisc add dev eth0 clsact", true},
	{"a queue elsewhere", "ip link add v0 type veth peer name v1; tc qdisc add dev v0 root tbf rate 1mbit burst 10k latency 50ms", false},
	{"a TUN of its own that is down", "ip tuntap add dev tun9 mode tun", false},
}

// runCase makes a namespace with eth0, opens a watch, runs the script of a case, and prints what is found.
func runCase(script string) error {
	if err := command("ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	f, err := tap.Create("eth0", nil, 1500, tap.Options{Offload: true})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := command("ip", "link", "set", "eth0", "up"); err != nil {
		return err
	}
	fds, err := openWatch()
	if err != nil {
		return err
	}
	w := newWatch(fds)
	defer w.Close()
	ipv6, err := fwmark.Prepare()
	if err == nil {
		err = loadRuleset(ipv6)
	}
	if err != nil {
		return err
	}
	if w.Changed() {
		return errors.New("usernet's own preparations are taken for the container's")
	}
	if err := command("sh", "-ec", script); err != nil {
		return err
	}
	changed := w.Changed()
	if w.Changed() {
		return errors.New("a change is told twice")
	}
	if _, err := fwmark.Prepare(); err != nil {
		return fmt.Errorf("the bypass is off: %w", err)
	}
	err = checkContainerRules()
	if err != nil && !errors.Is(err, ErrContainerRules) {
		return err
	}
	_, err = fmt.Printf("counts=%v changed=%v", err != nil, changed)
	return err
}

func init() {
	for _, c := range ruleCases {
		inside["rules: "+c.name] = func() error { return runCase(c.script) }
	}
	inside["table removed"] = func() error { return runCase("nft flush ruleset") }
}

func TestContainersOwnRulesAreNoticed(t *testing.T) {
	for _, program := range []string{"nft", "tc", "ip", "iptables-nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(os.NewSyscallError("open /dev/net/tun", err))
	} else {
		_ = unix.Close(fd)
	}
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			out := inNamespace(t, "rules: "+c.name)
			if want := fmt.Sprintf("counts=%v ", c.counts); !strings.HasPrefix(out, want) {
				t.Errorf("%s, want %s", out, want)
			}
			if c.counts && !strings.HasSuffix(out, "changed=true") {
				t.Errorf("nobody was told: %s", out)
			}
		})
	}
}

func TestRemovedRulesAreNoticed(t *testing.T) {
	if out := inNamespace(t, "table removed"); out != "counts=false changed=true" {
		t.Error(out)
	}
}
