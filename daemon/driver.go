package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/flannel"
	"github.com/usernet/usernet/overlay/static"
	"github.com/usernet/usernet/overlay/uplink"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
)

// Driver makes the networks of one kind run. What the model has to know of it, such as its scope, is in
// network.Drivers, under the same name. One that is a network.Allocator too reserves the addresses of its networks'
// endpoints.
type Driver interface {
	Name() string
	// Validate refuses what a network of this kind cannot be, before it is stored.
	Validate(n *network.Network) error
	// Open makes a network run, which the caller closes. It may take until ctx ends, and is called without a lock. Nil:
	// there is nothing to run.
	Open(ctx context.Context, n *network.Network, env Env) (*engine.Network, error)
}

// Subnetter is a driver whose networks have subnets that others decide; users give none.
type Subnetter interface {
	// Pools are those of a new network that Validate has let pass.
	Pools(ctx context.Context) ([]network.Pool, error)
}

// preparer is a Driver that completes what is asked for, before it is validated: with what only the machine knows.
type preparer interface {
	Prepare(ctx context.Context, spec *network.NetworkSpec) error
}

// vlanJoiner is a Driver whose networks are on a device with VLANs: JoinVLAN has those endpoints of a network reach one
// that are in it. It is called for each of them; leave is called when the endpoint goes, waits for nothing, and has the
// network leave the VLAN with the last one.
type vlanJoiner interface {
	JoinVLAN(n *network.Network, e *engine.Network, vlan uint16) (leave func(), err error)
}

// joinVLAN has a network reach a VLAN outside for an endpoint, where its driver can; elsewhere a VLAN is the switch's
// own. leave is as vlanJoiner's.
func (d *Daemon) joinVLAN(b *bridge, vlan uint16) (leave func(), err error) {
	driver, err := d.driverOf(b.record.Driver)
	if j, is := driver.(vlanJoiner); err == nil && is && vlan != 0 {
		return j.JoinVLAN(b.record, b.Network, vlan)
	}
	return func() {}, err
}

// Env is what a driver needs of the daemon.
type Env struct {
	Shared *forwarder.Shared // host ports, and limits over all networks
	Limits forwarder.Limits  // of each container
	Names  engine.Names
	Client func(container string) dns.Client
	// NoInboundBypass and NoOutboundBypass are what networks do that do not say.
	NoInboundBypass, NoOutboundBypass bool
	Logger                            *slog.Logger
}

// drivers are those of a daemon; member is nil where it is alone, speaker where it speaks to no router, node where it
// is none of flannel's, others are the model's networks, and changed is told of endpoints with another address than
// they had, and routed of physical networks whose routers announce something else.
func drivers(
	member membership, speaker *routing, peers *static.Set, node *flannel.Node, uplinks *uplink.Set,
	others func() []*network.Network, changed func(endpoint string, l dhcp.Lease),
	routed func(networkID string, vlan uint16),
) []Driver {
	return []Driver{
		bridgeDriver{speaker},
		noDriver(network.DriverHost),
		noDriver(network.DriverNull),
		overlayDriver{member},
		vxlanDriver{peers, speaker, others},
		flannelDriver{node, others},
		&macvlanDriver{uplinks, speaker, others, changed, routed},
	}
}

// noDriver is that of networks in which nothing runs: the host's own, and none.
type noDriver string

func (d noDriver) Name() string                  { return string(d) }
func (noDriver) Validate(*network.Network) error { return nil }

// Open implements Driver.
func (noDriver) Open(context.Context, *network.Network, Env) (*engine.Network, error) {
	return nil, nil
}

// allocators are the drivers that are network.Allocators.
func allocators(drivers []Driver) map[string]network.Allocator {
	found := map[string]network.Allocator{}
	for _, d := range drivers {
		if a, ok := d.(network.Allocator); ok {
			found[d.Name()] = a
		}
	}
	return found
}

// driverOf returns the driver of a network.
func (d *Daemon) driverOf(name string) (Driver, error) {
	for _, driver := range d.drivers {
		if driver.Name() == name {
			return driver, nil
		}
	}
	return nil, errdefs.NotImplemented("this daemon has no driver %s", name)
}

// env is what drivers get.
func (d *Daemon) env() Env {
	return Env{
		Shared:           d.shared,
		Limits:           d.cfg.PerContainer,
		Names:            d.dns,
		Client:           d.dnsClient,
		NoInboundBypass:  d.cfg.NoInboundBypass,
		NoOutboundBypass: d.cfg.NoOutboundBypass,
		Logger:           d.log,
	}
}

// bridgeDriver is a switch with a gateway, on this machine.
type bridgeDriver struct {
	bgp *routing // nil: the daemon speaks to no router
}

// Name implements Driver.
func (bridgeDriver) Name() string { return network.DriverBridge }

// Validate implements Driver.
func (d bridgeDriver) Validate(n *network.Network) error {
	if d.bgp == nil && n.Settings().BGP != "" {
		return errNoRouter("usernet.bgp")
	}
	if _, err := egress(n, "", nil); err != nil {
		return err
	}
	if _, err := neighbourRules(n); err != nil {
		return err
	}
	return checkServers(n.Settings().DNS)
}

// Open implements Driver.
func (bridgeDriver) Open(_ context.Context, n *network.Network, env Env) (*engine.Network, error) {
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	return engine.New(cfg)
}

// engineConfig is what a network with a switch and a gateway runs with.
func engineConfig(n *network.Network, env Env) (engine.Config, error) {
	policy, err := egress(n, "", nil)
	if err != nil {
		return engine.Config{}, err
	}
	s := n.Settings()
	cfg := engine.Config{
		Name:         n.Name,
		Gateways:     n.HostAddrs(),
		MTU:          s.MTU,
		Internal:     n.Internal || !s.Masquerade,
		Isolated:     !s.ICC,
		HostLoopback: s.HostLoopback,
		HideClients:  n.IsDirect(),
		Outbound: engine.Outbound{
			Addr4:      s.Outbound4,
			Addr6:      s.Outbound6,
			Interface:  s.OutboundInterface,
			Interface6: s.OutboundInterface,
		},
		Limits:           env.Limits,
		Shared:           env.Shared,
		Policy:           policy,
		Names:            env.Names,
		NameServers:      []netip.Addr{slirpDNS},
		Client:           env.Client,
		NoInboundBypass:  env.NoInboundBypass,
		NoOutboundBypass: env.NoOutboundBypass,
		Logger:           env.Logger,
	}
	if s.BypassInbound != nil {
		cfg.NoInboundBypass = !*s.BypassInbound
	}
	if s.BypassOutbound != nil {
		cfg.NoOutboundBypass = !*s.BypassOutbound
	}
	for _, p := range n.Pools {
		cfg.Subnets = append(cfg.Subnets, p.Subnet)
	}
	return cfg, nil
}

// errNothingRuns is for what needs a switch on a network that has none.
func errNothingRuns(n *network.Network) error {
	return fmt.Errorf("network %s has no switch to connect to", n.Name)
}
