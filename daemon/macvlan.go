package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/uplink"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
)

// macvlanDriver is a switch with a port to a physical network, on which its containers are stations of their own. The
// gateway stands for the host alone. Addresses are of the subnet that was given, or a DHCP server's.
type macvlanDriver struct {
	uplinks *uplink.Set
	bgp     *routing                  // nil: the daemon speaks to no router
	others  func() []*network.Network // all networks of the model
	// changed is told of endpoints to which the DHCP server gives another address than they had.
	changed func(endpoint string, l dhcp.Lease)
	// routed is told of a network of which the routers on a VLAN announce something else than before; 0: its own VLAN.
	routed func(networkID string, vlan uint16)
}

var (
	_ network.Leaser = (*macvlanDriver)(nil)
	_ preparer       = (*macvlanDriver)(nil)
)

// Name implements Driver.
func (*macvlanDriver) Name() string { return network.DriverMacvlan }

// place is where on which device a network is.
func place(s network.Settings) (uplink.Config, error) {
	device, vlan, err := uplink.Parse(s.Parent)
	if err != nil {
		return uplink.Config{}, errdefs.Invalid("parent: %w", err)
	}
	return uplink.Config{Device: device, VLAN: vlan}, nil
}

// placeOf is that of an endpoint in a VLAN; 0: in its network's.
func placeOf(n *network.Network, vlan uint16) (uplink.Config, error) {
	at, err := place(n.Settings())
	if vlan != 0 {
		at.VLAN = vlan
	}
	return at, err
}

// JoinVLAN implements vlanJoiner.
func (d *macvlanDriver) JoinVLAN(n *network.Network, e *engine.Network, vlan uint16) (leave func(), err error) {
	at, err := placeOf(n, vlan)
	if err != nil {
		return nil, err
	}
	if own, err := place(n.Settings()); err != nil || own.Device == at.Device && own.VLAN == at.VLAN {
		return nil, errdefs.Invalid("network %s is on VLAN %d itself: connect to it without --vlan", n.Name, vlan)
	}
	at.Apart = true
	return d.join(d.follow(at, n, vlan), n, e)
}

// join is Set.Join, with an error that says what to do about a VLAN that another network has.
func (d *macvlanDriver) join(at uplink.Config, n *network.Network, e *engine.Network) (func(), error) {
	at.Network = n.Name
	leave, err := d.uplinks.Join(at, e)
	return leave, uplinkError(n.Name, err)
}

// uplinkError is an error of Set.Join for the user, who gave the network's name; nil stays nil.
func uplinkError(name string, err error) error {
	var taken *uplink.TakenError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &taken):
		return errdefs.About(errdefs.TopicUplink, errdefs.Conflict("network %s: %w", name, err))
	}
	return errdefs.Unavailable("network %s: %w", name, err)
}

// found returns the device of a network.
func found(at uplink.Config) (uplink.Info, error) {
	info, err := uplink.Find(at.Device)
	if err != nil {
		return info, errdefs.Invalid("parent %s: %w: `usernet uplink check %s` says what the administrator has to do",
			at.Device, err, at.Device)
	}
	return info, nil
}

func errNoGroups(info uplink.Info) error {
	return errdefs.Unavailable("parent %s: IPv6 needs frames to groups, which it does not take: the administrator has to "+
		"run: %s", info.Name, info.GroupsCommand())
}

// Prepare implements preparer: a network that has no subnet gets that of the device, where the host has an address on
// it, or the one that a DHCP server is on.
func (d *macvlanDriver) Prepare(ctx context.Context, spec *network.NetworkSpec) error {
	n := &network.Network{Driver: d.Name(), Options: spec.Options}
	if n.CheckOptions() != nil || n.Settings().Parent == "" || spec.ConfigFrom != "" {
		return nil // Validate says what is wrong; settings that are taken from another network are complete
	}
	at, err := place(n.Settings())
	if err != nil {
		return err
	}
	info, err := found(at)
	if err != nil {
		return err
	}
	spec.Options = maps.Clone(spec.Options)
	mac := network.MAC(info.MAC)
	if info.Kind == uplink.TAP { // its own is the host's: a bridge that it is in gives the host what is sent there
		_, _ = rand.Read(mac[:])
		mac[0] = mac[0]&^1 | 2
	}
	if !info.ManyMACs() {
		spec.Options["usernet.mac"] = mac.String()
	}
	has := func(v6 bool) bool {
		return slices.ContainsFunc(spec.Pools, func(p network.Pool) bool {
			return p.Subnet.IsValid() && p.Subnet.Addr().Is6() == v6
		})
	}
	ipv6 := spec.EnableIPv6 != nil && *spec.EnableIPv6
	for _, a := range info.Addrs {
		if a.Addr().Is6() && !ipv6 {
			continue
		}
		if at.VLAN == 0 && !n.Settings().DHCP && !has(a.Addr().Is6()) { // the host routes to it
			spec.Pools = append(spec.Pools, network.Pool{Subnet: a.Masked(), Gateway: a.Addr()})
		}
	}
	if !ipv6 {
		off := false
		spec.EnableIPv6 = &off
	} else if !info.Groups {
		return errNoGroups(info)
	} else if !has(true) {
		if err := d.askRouters(ctx, spec, at, mac); err != nil {
			return err
		}
	}
	if has(false) || spec.EnableIPv4 != nil && !*spec.EnableIPv4 {
		return nil
	}
	return d.askPool(ctx, spec, at, mac)
}

// askPool asks a DHCP server which subnet is there.
func (d *macvlanDriver) askPool(
	ctx context.Context, spec *network.NetworkSpec, at uplink.Config, mac network.MAC,
) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	offer, err := d.uplinks.Discover(ctx, at, net.HardwareAddr(mac[:]))
	if errors.Is(err, dhcp.ErrNoAnswer) {
		return errdefs.About(errdefs.TopicUplink, errdefs.Unavailable(
			"parent %s: %w: where there is none, give the network's --subnet and --gateway", spec.Options["parent"], err))
	}
	if err != nil {
		return errdefs.About(errdefs.TopicUplink, errdefs.Unavailable("parent %s: %w", spec.Options["parent"], err))
	}
	spec.Options["usernet.dhcp"] = strconv.FormatBool(true)
	pool := network.Pool{Subnet: offer.Addr.Masked(), Gateway: offer.Router}
	if !pool.Gateway.IsValid() && offer.Addr.Contains(offer.Server) {
		pool.Gateway = offer.Server // there is no router: what is not on the link is nowhere
	}
	spec.Pools = append(spec.Pools, pool)
	return nil
}

// Validate implements Driver.
func (d *macvlanDriver) Validate(n *network.Network) error {
	if err := n.CheckOptions(); err != nil {
		return err
	}
	s := n.Settings()
	if s.Parent == "" {
		return errdefs.Invalid("a macvlan network is on a device: give -o parent=DEVICE[.VLAN]; `usernet uplink check` " +
			"shows those that there are")
	}
	at, err := place(s)
	if err != nil {
		return err
	}
	for _, o := range d.others() {
		if other, err := place(o.Settings()); err == nil && o.IsDirect() && !o.ConfigOnly && o.Name != n.Name &&
			other.Device == at.Device && other.VLAN == at.VLAN {
			// Docker's text.
			return errdefs.Conflict("network %s is already using parent interface %s", o.Name, s.Parent)
		}
	}
	info, err := found(at)
	if err != nil {
		return err
	}
	if n.EnableIPv6 && !info.Groups {
		return errNoGroups(info)
	}
	if err := d.checkRoutes(s, at, info); err != nil {
		return err
	}
	if err := d.uplinks.Probe(at.Device); err != nil {
		return errdefs.About(errdefs.TopicUplink, errdefs.Unavailable("%w", err))
	}
	return checkServers(s.DNS)
}

// Open implements Driver.
func (d *macvlanDriver) Open(_ context.Context, n *network.Network, env Env) (*engine.Network, error) {
	at, err := place(n.Settings())
	if err != nil {
		return nil, err
	}
	info, err := found(at)
	if err != nil {
		return nil, err
	}
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = info.MTU
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := d.join(d.follow(at, n, 0), n, e); err != nil { // it leaves with its end
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

// Leases implements network.Leaser.
func (*macvlanDriver) Leases(n *network.Network, ipv6 bool) bool {
	if ipv6 {
		return n.Settings().Autoconf
	}
	return n.Settings().DHCP
}

// Taken implements network.Leaser.
func (d *macvlanDriver) Taken(ctx context.Context, n *network.Network, c network.Claim) (string, error) {
	at, err := placeOf(n, c.VLAN)
	if err != nil {
		return "", err
	}
	other, err := d.uplinks.Taken(ctx, at, net.HardwareAddr(c.MAC[:]), c.Want)
	if err != nil {
		return "", errdefs.Unavailable("network %s: %w", n.Name, err)
	}
	return other.String(), nil
}

// Reserve implements network.Allocator. It is not called: Lease is.
func (d *macvlanDriver) Reserve(
	ctx context.Context, n *network.Network, p network.Pool, want netip.Addr, owner string,
) (netip.Addr, error) {
	return netip.Addr{}, errdefs.Internal("network %s: an address was asked for without a MAC address", n.Name)
}

// Lease implements network.Leaser.
func (d *macvlanDriver) Lease(
	ctx context.Context, n *network.Network, p network.Pool, c network.Claim,
) (netip.Addr, error) {
	at, err := placeOf(n, c.VLAN)
	if err != nil {
		return netip.Addr{}, err
	}
	cfg := d.config(c)
	if cfg.IPv6 = p.Subnet.Addr().Is6(); cfg.IPv6 {
		a, managed, err := d.ownAddress(ctx, n, p, c, at)
		if err != nil || !managed {
			return a, err
		}
	}
	got, err := d.uplinks.Lease(ctx, c.Owner, at, cfg)
	if err != nil {
		return netip.Addr{}, errdefs.About(errdefs.TopicUplink, errdefs.Unavailable("network %s: %w", n.Name, err))
	}
	a := got.Addr.Addr()
	switch {
	case !p.Subnet.Contains(a):
		err = errdefs.Unavailable("network %s: the DHCP server gives %s, and the network was made for %s: make it anew",
			n.Name, got.Addr, p.Subnet)
	case c.Want.IsValid() && a != c.Want:
		err = errdefs.Forbidden("network %s: the DHCP server gives %s instead of %s", n.Name, a, c.Want)
	default:
		return a, nil
	}
	d.uplinks.Release(c.Owner, cfg.IPv6)
	return netip.Addr{}, err
}

func (d *macvlanDriver) config(c network.Claim) dhcp.Config {
	return dhcp.Config{
		MAC:      net.HardwareAddr(c.MAC[:]),
		Hostname: c.Hostname,
		Want:     c.Want,
		Changed:  func(l dhcp.Lease) { d.changed(c.Owner, l) },
	}
}

// Release implements network.Allocator.
func (d *macvlanDriver) Release(_ *network.Network, a netip.Addr, owner string) {
	d.uplinks.Release(owner, a.Is6())
}

// Resume has the address renewed that an endpoint has from an earlier daemon.
func (d *macvlanDriver) Resume(n *network.Network, c network.Claim) error {
	at, err := placeOf(n, c.VLAN)
	if err == nil {
		cfg := d.config(c)
		cfg.IPv6 = c.Want.Is6()
		err = d.uplinks.Resume(c.Owner, at, cfg)
	}
	return err
}
