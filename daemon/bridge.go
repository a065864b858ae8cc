package daemon

import (
	"cmp"
	"net/netip"
	"strconv"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// Options of a network that the daemon acts on. The names are Docker's where Docker has one.
const (
	optMTU            = "com.docker.network.driver.mtu"
	optICC            = "com.docker.network.bridge.enable_icc"
	optMasquerade     = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding4   = "com.docker.network.bridge.host_binding_ipv4"
	optHostLoopback   = "usernet.host_loopback"
	optOutbound4      = "usernet.outbound_addr"
	optOutbound6      = "usernet.outbound_addr6"
	optHost4          = "com.docker.network.host_ipv4" // Docker's name for the same
	optHost6          = "com.docker.network.host_ipv6"
	optOutboundDev    = "usernet.outbound_interface"
	optBypassInbound  = "usernet.bypass_inbound"  // false carries published ports through the gateway always
	optBypassOutbound = "usernet.bypass_outbound" // the same for connections to the outside
)

// bridge is a network of the driver bridge while it is in use.
type bridge struct {
	*engine.Network
	record  *network.Network
	unwatch func() // its locks are not watched any more
}

// slirpDNS is where slirp4netns answers names, and what the resolv.conf of those who come from there says (slirp4netns(1)).
var slirpDNS = netip.AddrFrom4([4]byte{10, 0, 2, 3})

// newBridge makes n run.
func (d *Daemon) newBridge(n *network.Network) (*bridge, error) {
	policy, err := egress(n, "", nil)
	if err != nil {
		return nil, err
	}
	cfg := engine.Config{
		Name:             n.Name,
		Gateways:         gatewayAddrs(n),
		MTU:              optionInt(n.Options, optMTU, engine.DefaultMTU),
		Internal:         n.Internal || !optionBool(n.Options, optMasquerade, true),
		Isolated:         !optionBool(n.Options, optICC, true),
		HostLoopback:     optionBool(n.Options, optHostLoopback, false),
		Outbound:         engine.Outbound{Interface: n.Options[optOutboundDev]},
		Limits:           d.cfg.PerContainer,
		Shared:           d.shared,
		Policy:           policy,
		Names:            d.dns,
		NameServers:      []netip.Addr{slirpDNS},
		Client:           func(container string) dns.Client { return d.dnsClient(container) },
		NoInboundBypass:  !optionBool(n.Options, optBypassInbound, !d.cfg.NoInboundBypass),
		NoOutboundBypass: !optionBool(n.Options, optBypassOutbound, !d.cfg.NoOutboundBypass),
		Logger:           d.log,
	}
	for _, p := range n.Pools {
		cfg.Subnets = append(cfg.Subnets, p.Subnet)
	}
	cfg.Outbound.Addr4, _ = netip.ParseAddr(cmp.Or(n.Options[optOutbound4], n.Options[optHost4]))
	cfg.Outbound.Addr6, _ = netip.ParseAddr(cmp.Or(n.Options[optOutbound6], n.Options[optHost6]))
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	return &bridge{Network: e, record: n, unwatch: d.watchdog.Watch(e.Locks()...)}, nil
}

func (b *bridge) close() error {
	err := b.Close()
	b.unwatch()
	return err
}

// bridgeSlot is where a bridge is or will be. What is there is to be read once ready is closed.
type bridgeSlot struct {
	ready  chan struct{}
	bridge *bridge
	err    error
}

// bridgeFor returns the running bridge of n, making it where there is none. It is made without a lock, since that takes a
// gateway, threads and listeners; who asks for the same one meanwhile waits for it.
func (d *Daemon) bridgeFor(n *network.Network) (*bridge, error) {
	d.mu.Lock()
	slot, found := d.bridges[n.ID]
	if !found {
		slot = &bridgeSlot{ready: make(chan struct{})}
		d.bridges[n.ID] = slot
	}
	d.mu.Unlock()
	if found {
		<-slot.ready
		return slot.bridge, slot.err
	}
	defer close(slot.ready)
	if slot.bridge, slot.err = d.newBridge(n); slot.err != nil {
		d.mu.Lock()
		if d.bridges[n.ID] == slot { // the next one tries again
			delete(d.bridges, n.ID)
		}
		d.mu.Unlock()
	}
	return slot.bridge, slot.err
}

// bridge returns the running bridge of a network; nil: it does not run, or not yet.
func (d *Daemon) bridge(networkID string) *bridge {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bridges[networkID].now()
}

// now is what is there already.
func (s *bridgeSlot) now() *bridge {
	if s == nil {
		return nil
	}
	select {
	case <-s.ready:
		return s.bridge
	default:
		return nil
	}
}

// bridgeList are all running bridges.
func (d *Daemon) bridgeList() []*bridge {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*bridge
	for _, s := range d.bridges {
		if b := s.now(); b != nil {
			list = append(list, b)
		}
	}
	return list
}

// dropBridge ends the bridge of a removed network.
func (d *Daemon) dropBridge(networkID string) {
	d.mu.Lock()
	s := d.bridges[networkID]
	delete(d.bridges, networkID)
	d.mu.Unlock()
	if s == nil {
		return
	}
	<-s.ready
	if s.bridge == nil {
		return
	}
	if err := s.bridge.close(); err != nil {
		d.log.Warn("network did not end cleanly", "network", s.bridge.record.Name, "error", err)
	}
}

// closeBridges ends all bridges.
func (d *Daemon) closeBridges() (errs []error) {
	d.mu.Lock()
	all := d.bridges
	d.bridges = map[string]*bridgeSlot{}
	d.mu.Unlock()
	for _, s := range all {
		<-s.ready
		if s.bridge != nil {
			errs = append(errs, s.bridge.close())
		}
	}
	return errs
}

// gatewayAddrs are the addresses the gateway answers at, each with its subnet's length.
func gatewayAddrs(n *network.Network) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range n.Pools {
		if p.Gateway.IsValid() {
			list = append(list, netip.PrefixFrom(p.Gateway, p.Subnet.Bits()))
		}
	}
	return list
}

func optionBool(options map[string]string, name string, def bool) bool {
	if v, err := strconv.ParseBool(options[name]); err == nil {
		return v
	}
	return def
}

func optionInt(options map[string]string, name string, def int) int {
	if v, err := strconv.Atoi(options[name]); err == nil && v > 0 {
		return v
	}
	return def
}
