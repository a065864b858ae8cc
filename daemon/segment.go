package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/stack"
	vswitch "github.com/usernet/usernet/switch"
)

// Options of a network that the daemon acts on. The names are Docker's where Docker has one.
const (
	optMTU          = "com.docker.network.driver.mtu"
	optICC          = "com.docker.network.bridge.enable_icc"
	optMasquerade   = "com.docker.network.bridge.enable_ip_masquerade"
	optHostBinding4 = "com.docker.network.bridge.host_binding_ipv4"
	optHostLoopback = "usernet.host_loopback"
	optOutbound4    = "usernet.outbound_addr"
	optOutbound6    = "usernet.outbound_addr6"
	optHost4        = "com.docker.network.host_ipv4" // Docker's name for the same
	optHost6        = "com.docker.network.host_ipv6"
	optOutboundDev  = "usernet.outbound_interface"
)

// defaultMTU is Ethernet's (RFC 894). Throughput does not depend on it: frames inside are super-frames.
const defaultMTU = 1500

// segment is one network while it is in use: its switch, its gateway and what forwards for it.
type segment struct {
	net      *network.Network
	sw       *vswitch.Switch
	gw       *stack.Gateway
	fwd      *forwarder.Forwarder
	mtu      int
	icc      bool
	direct   bool // connections to published ports go past the gateway
	fastPath bool // so do those of containers
	log      *slog.Logger
	egress   *policy.Policy // of what is no container's
	refusals refusalLog
	serves   sync.WaitGroup // DNS on the gateway's addresses
	unwatch  func()         // its locks are not watched any more

	mu     sync.RWMutex
	owners map[netip.Addr]owner     // by inside address
	ports  map[string]*vswitch.Port // by container id
}

// owner is the container behind an inside address.
type owner struct {
	id, name     string
	hostLoopback bool
	egress       *policy.Policy
	sockets      *sandbox.Sockets
}

func (d *Daemon) newSegment(n *network.Network) (*segment, error) {
	g := &segment{net: n, mtu: optionInt(n.Options, optMTU, defaultMTU), icc: optionBool(n.Options, optICC, true),
		owners: map[netip.Addr]owner{}, ports: map[string]*vswitch.Port{}}
	g.direct, g.fastPath = optionBool(n.Options, optDirect, !d.cfg.NoDirectPorts), optionBool(n.Options, optFastPath, !d.cfg.NoFastPath)
	log := d.log.With("network", n.Name)
	g.log = log
	var err error
	if g.egress, err = egress(n, "", nil); err != nil {
		return nil, err
	}
	g.sw = vswitch.New(vswitch.Config{Name: n.Name, Logger: log, MTU: g.mtu})
	addrs := gatewayAddrs(n)
	g.gw, err = stack.New(stack.Config{
		Name: n.Name, MAC: gatewayMAC(n), MTU: uint32(g.mtu), Addresses: addrs, Switch: g.sw, Logger: log,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gateway of network %s: %w", n.Name, err), g.sw.Close())
	}
	cfg := forwarder.Config{
		Network: n.Name, Inside: g.gw, Logger: log,
		Internal:     n.Internal || !optionBool(n.Options, optMasquerade, true),
		HostLoopback: g.hostLoopback,
		Allow:        g.allow,
		Shared:       d.shared,
		Socket:       g.socket,
		NoAnswer:     g.noAnswer,
		Limits:       d.cfg.PerContainer,
		Owner:        func(a netip.Addr) string { return g.owner(a).id },
	}
	for _, a := range addrs {
		if a.Addr().Is4() {
			cfg.Gateway4 = a.Addr()
		} else {
			cfg.Gateway6 = a.Addr()
		}
	}
	cfg.OutboundAddr4, _ = netip.ParseAddr(cmp.Or(n.Options[optOutbound4], n.Options[optHost4]))
	cfg.OutboundAddr6, _ = netip.ParseAddr(cmp.Or(n.Options[optOutbound6], n.Options[optHost6]))
	cfg.OutboundInterface = n.Options[optOutboundDev]
	if g.fwd, err = forwarder.New(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("network %s: %w", n.Name, err), g.gw.Close(), g.sw.Close())
	}
	g.gw.SetHandler(g.fwd)
	g.unwatch = d.watchSegment(g)
	if err := d.serveGatewayDNS(g, addrs); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// slirpDNS is where slirp4netns answers names, and what the resolv.conf of those who come from there says (slirp4netns(1)).
var slirpDNS = netip.AddrFrom4([4]byte{10, 0, 2, 3})

// serveGatewayDNS answers names at port 53 of each of the gateway's addresses, and at slirp4netns's, for sandboxes whose
// resolv.conf usernet does not write.
func (d *Daemon) serveGatewayDNS(g *segment, addrs []netip.Prefix) error {
	client := func(from net.Addr) dns.Client {
		ap, err := netip.ParseAddrPort(from.String())
		if err != nil {
			return dns.Client{}
		}
		return d.dnsClient(g.owner(ap.Addr().Unmap().WithZone("")).id)
	}
	list := []netip.Addr{slirpDNS}
	for _, a := range addrs {
		if a.Addr() != slirpDNS {
			list = append(list, a.Addr())
		}
	}
	for _, a := range list {
		at := netip.AddrPortFrom(a, 53)
		pc, err := g.gw.ListenUDP(at)
		if err != nil {
			return fmt.Errorf("DNS on %s: %w", at, err)
		}
		ln, err := g.gw.ListenTCP(at)
		if err != nil {
			return errors.Join(fmt.Errorf("DNS on %s: %w", at, err), pc.Close())
		}
		d.serveDNS(&g.serves, pc, ln, client)
	}
	return nil
}

// serveDNS answers on both sockets until they are closed or paused; wg counts the two loops.
func (d *Daemon) serveDNS(wg *sync.WaitGroup, pc net.PacketConn, ln net.Listener, client func(net.Addr) dns.Client) {
	serve := func(f func() error) {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) && d.ctx.Err() == nil {
			d.log.Debug("DNS socket ended", "address", pc.LocalAddr(), "error", err)
		}
	}
	wg.Go(func() { serve(func() error { return d.dns.ServePacket(pc, client) }) })
	wg.Go(func() { serve(func() error { return d.dns.ServeListener(ln, client) }) })
}

func (g *segment) close() error {
	err := errors.Join(g.fwd.Close(), g.gw.Close(), g.sw.Close())
	g.serves.Wait()
	g.unwatch()
	return err
}

func (g *segment) owner(a netip.Addr) owner {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.owners[a]
}

func (g *segment) hostLoopback(a netip.Addr) bool {
	return optionBool(g.net.Options, optHostLoopback, false) || g.owner(a).hostLoopback
}

func (g *segment) own(c *network.Container, addrs []netip.Addr, mac net.HardwareAddr, p *policy.Policy, sockets *sandbox.Sockets) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		g.owners[a] = owner{id: c.ID, name: c.Name, hostLoopback: c.HostLoopback, egress: p, sockets: sockets}
		g.gw.SetNeighbor(a, mac)
	}
}

// renameOwner gives the container behind addrs another name.
func (g *segment) renameOwner(name string, addrs []netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addrs {
		if o, ok := g.owners[a]; ok {
			o.name = name
			g.owners[a] = o
		}
	}
}

func (g *segment) disown(addrs []netip.Addr) {
	g.mu.Lock()
	for _, a := range addrs {
		delete(g.owners, a)
	}
	g.mu.Unlock()
	for _, a := range addrs {
		g.gw.DropNeighbor(a)
		g.fwd.DropContainer(a)
	}
}

// segmentFor returns the running segment of n, making it where there is none.
func (d *Daemon) segmentFor(n *network.Network) (*segment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g := d.segments[n.ID]; g != nil {
		return g, nil
	}
	g, err := d.newSegment(n)
	if err != nil {
		return nil, err
	}
	d.segments[n.ID] = g
	return g, nil
}

func (d *Daemon) segment(networkID string) *segment {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.segments[networkID]
}

// dropSegment ends the segment of a removed network.
func (d *Daemon) dropSegment(networkID string) {
	d.mu.Lock()
	g := d.segments[networkID]
	delete(d.segments, networkID)
	d.mu.Unlock()
	if g == nil {
		return
	}
	if err := g.close(); err != nil {
		d.log.Warn("network did not end cleanly", "network", g.net.Name, "error", err)
	}
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

// gatewayMAC is 02:42 and the IPv4 gateway, as Docker's bridges have; without IPv4, the last four bytes of the
// IPv6 gateway behind 02:43, so that the two never meet.
func gatewayMAC(n *network.Network) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x43, 0, 0, 0, 0}
	for _, p := range n.Pools {
		switch {
		case p.Gateway.Is4():
			a := p.Gateway.As4()
			mac[1] = 0x42
			copy(mac[2:], a[:])
			return mac
		case p.Gateway.Is6():
			a := p.Gateway.As16()
			copy(mac[2:], a[12:])
		}
	}
	return mac
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
