package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// egressOptions are a network's options of these names without their prefix.
func egressOptions(pairs ...string) map[string]string {
	options := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		options["usernet."+pairs[i]] = pairs[i+1]
	}
	return options
}

// TestPolicyOfAContainerOnANetwork combines modes and rules of both, and tries four destinations.
func TestPolicyOfAContainerOnANetwork(t *testing.T) {
	inner, outer := netip.MustParseAddrPort("10.1.2.3:443"), netip.MustParseAddrPort("192.0.2.1:443")
	metadata := netip.MustParseAddrPort("169.254.169.254:80")
	for name, test := range map[string]struct {
		options map[string]string
		mode    string
		allow   []string
		want    string // which of inner, outer, outer by UDP, and metadata may be reached
	}{
		"nothing is said":      {want: "inner outer udp"},
		"the network denies":   {options: egressOptions("egress", "deny")},
		"the container denies": {mode: "deny"},
		"the container allows anyway": {options: egressOptions("egress", "deny"), mode: "allow",
			want: "inner outer udp"},
		"the container denies anyway": {options: egressOptions("egress", "allow"), mode: "deny"},
		"no-rebind replaces neither":  {options: egressOptions("egress", "deny"), mode: "no-rebind"},
		"a rule of the network's": {
			options: egressOptions("egress", "deny", "allow_egress", "10.0.0.0/8"),
			want:    "inner",
		},
		"a rule of the container's":     {mode: "deny", allow: []string{"192.0.2.0/24:443/tcp"}, want: "outer"},
		"a rule for another port":       {mode: "deny", allow: []string{"192.0.2.0/24:80"}},
		"a rule about what is special":  {allow: []string{"169.254.169.254"}, want: "inner outer udp metadata"},
		"a rule for all is not special": {mode: "deny", allow: []string{"0.0.0.0/0"}, want: "inner outer udp"},
		"rules of both": {
			options: egressOptions("egress", "deny", "allow_egress", "10.0.0.0/8"),
			allow:   []string{"192.0.2.0/24"},
			want:    "inner outer udp",
		},
		"a rule about names opens no address": {mode: "deny", allow: []string{"*.example.org", "dns"}},
	} {
		p, err := egress(&network.Network{Driver: network.DriverBridge, Options: test.options}, test.mode, test.allow)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, one := range []struct {
			name  string
			proto uint8
			dst   netip.AddrPort
		}{
			{"inner", unix.IPPROTO_TCP, inner}, {"outer", unix.IPPROTO_TCP, outer}, {"udp", unix.IPPROTO_UDP, outer},
			{"metadata", unix.IPPROTO_TCP, metadata},
		} {
			if p.Decide(one.proto, one.dst) == nil {
				got = append(got, one.name)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: it may reach %v, want %s", name, got, test.want)
		}
	}
}

// TestPoliciesThatMakeNoSense are refused before anything is stored, of containers and of networks.
func TestPoliciesThatMakeNoSense(t *testing.T) {
	d := newTestDaemon(t)
	many := slices.Repeat([]string{"192.0.2.1"}, 65)
	for name, spec := range map[string]network.ContainerSpec{
		"a mode":         {Egress: "sometimes"},
		"a rule":         {AllowEgress: []string{"10.0.0.0/33:x"}},
		"too many rules": {AllowEgress: many},
		"a resolver":     {DNS: []string{"no address"}},
	} {
		spec.Name = "c1"
		if _, _, err := d.CreateContainer(t.Context(), spec); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, options := range map[string]map[string]string{
		"a mode":         egressOptions("egress", "sometimes"),
		"a rule":         egressOptions("allow_egress", "10.0.0.0/33:x"),
		"too many rules": egressOptions("allow_egress", strings.Join(many, ",")),
		"a resolver":     egressOptions("dns", "no address"),
	} {
		if _, _, err := d.CreateNetwork(t.Context(),
			network.NetworkSpec{Name: "one", Options: options}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s of a network: %v", name, err)
		}
	}
	if len(d.Containers()) != 0 || len(d.Networks()) != 3 || len(actions(t, d)) != 0 {
		t.Errorf("%d containers and %d networks are stored, and %v was told", len(d.Containers()), len(d.Networks()),
			actions(t, d))
	}
}

// TestPoliciesReachTheSwitchAndTheResolver starts containers with policies of their own on networks with others, and
// asks the resolver's questions: for a name, for an allowed one, and for a private address as the answer to the first.
func TestPoliciesReachTheSwitchAndTheResolver(t *testing.T) {
	private := netip.MustParseAddr("10.99.0.1")
	for name, test := range map[string]struct {
		networks []network.NetworkSpec
		spec     network.ContainerSpec
		want     string // what is refused: name, allowed, answer; "nothing is asked" where it may do anything
	}{
		"no policy": {networks: []network.NetworkSpec{{Name: "one"}}, want: "nothing is asked"},
		"deny": {
			networks: []network.NetworkSpec{{Name: "one"}},
			spec:     network.ContainerSpec{Egress: "deny", AllowEgress: []string{"good.example.org"}},
			want:     "name",
		},
		"deny, by the network": {
			networks: []network.NetworkSpec{
				{Name: "one", Options: egressOptions("egress", "deny", "allow_egress", "good.example.org")},
			},
			want: "name",
		},
		"deny, without a rule": {
			networks: []network.NetworkSpec{{Name: "one", Options: egressOptions("egress", "deny")}},
			want:     "name allowed",
		},
		"a second network allows": {
			networks: []network.NetworkSpec{{Name: "one", Options: egressOptions("egress", "deny")}, {Name: "two"}},
			want:     "nothing is asked",
		},
		"a second network leads nowhere": {
			networks: []network.NetworkSpec{
				{Name: "one", Options: egressOptions("egress", "deny")},
				{Name: "two", Internal: true},
			},
			want: "name allowed",
		},
		"a second network allows one name": {
			networks: []network.NetworkSpec{
				{Name: "one", Options: egressOptions("egress", "deny")},
				{Name: "two", Options: egressOptions("egress", "deny", "allow_egress", "good.example.org")},
			},
			want: "name",
		},
		"no-rebind": {
			networks: []network.NetworkSpec{{Name: "one", Options: egressOptions("egress", "no-rebind")}},
			want:     "answer",
		},
		"both": {
			networks: []network.NetworkSpec{{Name: "one", Options: egressOptions("egress", "no-rebind")}},
			spec:     network.ContainerSpec{Egress: "deny", AllowEgress: []string{"good.example.org"}},
			want:     "name answer",
		},
		"one network of two with no-rebind": {
			networks: []network.NetworkSpec{
				{Name: "one"},
				{Name: "two", Options: egressOptions("egress", "no-rebind")},
			},
			want: "answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newFakeDaemon(t)
			makeNetworks(t, d, test.networks...)
			test.spec.Name, test.spec.DNSSearch = "c1", []string{"corp.example."}
			for _, n := range test.networks {
				test.spec.Networks = append(test.spec.Networks, network.NamedEndpointSpec{Network: n.Name})
			}
			c := started(t, d, test.spec)
			client := d.dnsClient(c.ID)
			var got []string
			if query := client.AllowQuery; query != nil {
				if query("bad.example.org", netip.Addr{}) != nil {
					got = append(got, "name")
				}
				if query("good.example.org", netip.Addr{}) != nil {
					got = append(got, "allowed")
				}
			}
			if answer := client.AllowAnswer; answer != nil {
				if answer("bad.example.org", private) != nil {
					got = append(got, "answer")
				}
				if err := answer("host.corp.example", private); err != nil {
					t.Errorf("a private address of a search domain: %v", err)
				}
			}
			if client.AllowQuery == nil && client.AllowAnswer == nil {
				got = []string{"nothing is asked"}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("refused: %v, want %s", got, test.want)
			}
		})
	}
}

// TestQueriesBeforeTheNetworkIsThere are refused: a policy that is not there allows nothing.
func TestQueriesBeforeTheNetworkIsThere(t *testing.T) {
	d, _ := newFakeDaemon(t)
	c, nets := onNetworks(t, "open", "servers")
	for _, n := range nets {
		n.Options = egressOptions("egress", "deny,no-rebind", "allow_egress", "dns")
	}
	if err := d.allowQuery(c, nets)("example.org", netip.Addr{}); !errors.Is(err, engine.ErrNotAttached) {
		t.Errorf("a question: %v", err)
	}
	if err := d.allowAnswer(c, nets)("example.org", netip.MustParseAddr("192.0.2.1")); !errors.Is(err,
		engine.ErrNotAttached) {
		t.Errorf("an answer: %v", err)
	}
}

// TestOptionsReachTheEngine makes networks of options, and looks at what their engines are made with.
func TestOptionsReachTheEngine(t *testing.T) {
	const docker = "com.docker.network."
	env := Env{NoInboundBypass: true}
	for name, test := range map[string]struct {
		change func(*network.Network)
		differ string // fields that differ from those of a network without options
	}{
		"none":     {func(*network.Network) {}, ""},
		"internal": {func(n *network.Network) { n.Internal = true }, "Internal=true"},
		"no way out": {func(n *network.Network) { n.Options[docker+"bridge.enable_ip_masquerade"] = "false" },
			"Internal=true"},
		"isolated": {func(n *network.Network) { n.Options[docker+"bridge.enable_icc"] = "false" }, "Isolated=true"},
		"mtu":      {func(n *network.Network) { n.Options[docker+"driver.mtu"] = "9000" }, "MTU=9000"},
		"loopback": {func(n *network.Network) { n.Options["usernet.host_loopback"] = "true" }, "HostLoopback=true"},
		"bypass": {func(n *network.Network) { n.Options["usernet.bypass_inbound"] = "true" },
			"NoInboundBypass=false"},
		"no bypass": {func(n *network.Network) { n.Options["usernet.bypass_outbound"] = "false" },
			"NoOutboundBypass=true"},
		"outbound address": {func(n *network.Network) { n.Options["usernet.outbound_addr"] = "192.0.2.9" },
			"Addr4=192.0.2.9"},
		"outbound interface": {func(n *network.Network) { n.Options["usernet.outbound_interface"] = "eth7" },
			"Interface=eth7 Interface6=eth7"},
		"a pool without a gateway": {func(n *network.Network) { n.Pools[0].Gateway = netip.Addr{} }, "Gateways=[]"},
		"a second pool": {func(n *network.Network) {
			n.Pools = append(n.Pools, network.Pool{
				Subnet:  netip.MustParsePrefix("fd00:1::/64"),
				Gateway: netip.MustParseAddr("fd00:1::1"),
			})
		}, "Gateways=[10.1.0.1/16 fd00:1::1/64] Subnets=[10.1.0.0/16 fd00:1::/64]"},
	} {
		n := &network.Network{Name: "one", Driver: network.DriverBridge, Options: map[string]string{}}
		n.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("10.1.0.0/16"),
			Gateway: netip.MustParseAddr("10.1.0.1")}}
		plain, err := engineConfig(n, env)
		if err != nil {
			t.Fatal(err)
		}
		test.change(n)
		cfg, err := engineConfig(n, env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		before, after := fieldsOf(plain), fieldsOf(cfg)
		var differ []string
		for i := range after {
			if after[i] != before[i] {
				differ = append(differ, after[i])
			}
		}
		if strings.Join(differ, " ") != test.differ {
			t.Errorf("%s: %v, want %s", name, differ, test.differ)
		}
	}
}

// fieldsOf writes down those fields of an engine's config that a network's options decide on.
func fieldsOf(c engine.Config) []string {
	return []string{
		fmt.Sprintf("Gateways=%v", c.Gateways), fmt.Sprintf("Subnets=%v", c.Subnets), fmt.Sprintf("MTU=%d", c.MTU),
		fmt.Sprintf("Internal=%v", c.Internal), fmt.Sprintf("Isolated=%v", c.Isolated),
		fmt.Sprintf("HostLoopback=%v", c.HostLoopback), fmt.Sprintf("Addr4=%v", c.Outbound.Addr4),
		fmt.Sprintf("Addr6=%v", c.Outbound.Addr6), fmt.Sprintf("Interface=%v", c.Outbound.Interface),
		fmt.Sprintf("Interface6=%v", c.Outbound.Interface6), fmt.Sprintf("NoInboundBypass=%v", c.NoInboundBypass),
		fmt.Sprintf("NoOutboundBypass=%v", c.NoOutboundBypass),
	}
}
