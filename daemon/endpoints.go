package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

// An endpoint is attached in three steps: the sandbox's agent makes a TAP with its addresses and routes, the network's
// engine connects the TAP to a switch port, and names and published ports follow.

// Connect gives a container an interface on one more network, at once where it runs.
func (d *Daemon) Connect(ctx context.Context, networkRef, containerRef string, spec network.EndpointSpec) error {
	s, c, err := d.connectable(containerRef)
	if err != nil {
		return err
	}
	defer d.updateFiles(c.ID) // after the unlocking
	defer s.mu.Unlock()
	c, e, err := d.model.Connect(networkRef, c.ID, spec)
	if err != nil {
		return err
	}
	if c.Status == network.Running {
		ctx, cancel := context.WithTimeout(ctx, agentTimeout)
		defer cancel()
		if err := d.attachEndpoints(ctx, s, c, []*network.Endpoint{e}, nil); err != nil {
			s.detachEndpoint(e.ID)
			if _, _, undo := d.model.Disconnect(e.NetworkID, c.ID, true); undo != nil {
				d.log.Error("endpoint left in the store", "container", c.Name, "network", e.Network, "error", undo)
			}
			return err
		}
	}
	d.afterEndpointChange(ctx, s, c)
	d.endpointEvent("connect", c, e)
	return nil
}

// connectable finds a container whose interfaces are this daemon's to make and remove, and locks it. The caller
// unlocks.
func (d *Daemon) connectable(ref string) (*containerRuntime, *network.Container, error) {
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return nil, nil, err
	}
	if c.Moves {
		s.mu.Unlock()
		return nil, nil, errMoves(c)
	}
	return s, c, nil
}

// Disconnect takes a container's interface on a network away.
func (d *Daemon) Disconnect(ctx context.Context, networkRef, containerRef string, force bool) error {
	s, c, err := d.connectable(containerRef)
	if err != nil {
		return err
	}
	defer d.updateFiles(c.ID) // after the unlocking
	defer s.mu.Unlock()
	c, e, err := d.model.Disconnect(networkRef, c.ID, force)
	if err != nil {
		return err
	}
	s.detachEndpoint(e.ID)
	if c.Status == network.Running {
		ctx, cancel := context.WithTimeout(ctx, agentTimeout)
		defer cancel()
		if err := d.attachEndpoints(ctx, s, c, nil, []string{e.Interface}); err != nil {
			// The switch port is closed and the store agrees; a sandbox that cannot be entered is about to end.
			d.log.Warn("interface left in the sandbox", "container", c.Name, "interface", e.Interface, "error", err)
		}
	}
	d.afterEndpointChange(ctx, s, c)
	d.endpointEvent("disconnect", c, e)
	return nil
}

// afterEndpointChange brings names and published ports in line after an endpoint came or went. The caller holds s.mu.
func (d *Daemon) afterEndpointChange(ctx context.Context, s *containerRuntime, c *network.Container) {
	d.updateNames(c.ID)
	d.refreshLinkedHosts(c.Name)
	if c.Status != network.Running {
		return
	}
	if d.portsMoved(s, c) {
		d.unpublishAll(s)
		if err := d.publishAll(ctx, s, c); err != nil {
			d.log.Error("published ports lost", "container", c.Name, "error", err)
		}
		if s.bound.Len() > 0 { // else those from before are chosen again later
			d.storeHostPorts(s, c)
		}
	}
}

// portsMoved says whether the container's published ports are bound on a network that is no longer the right one.
func (d *Daemon) portsMoved(s *containerRuntime, c *network.Container) bool {
	e4, e6 := network.DefaultRouteEndpoint(c, d.networkByID)
	e := e4
	if e == nil {
		e = e6
	}
	if e == nil || s.attachments[e.ID] == nil {
		return s.bound.Len() > 0
	}
	if s.bound.Len() == 0 {
		return d.model.PublishesPorts(c.ID) || c.PublishAll
	}
	return s.boundOn != s.attachments[e.ID].bridge
}

// attachMissing attaches the endpoints of c that are not attached yet. The caller holds s.mu.
func (d *Daemon) attachMissing(ctx context.Context, s *containerRuntime, c *network.Container) error {
	missing := d.missing(s, c)
	if len(missing) == 0 && (s.stub != nil || c.Moves) {
		return nil // routes and addresses were set when the stub was made
	}
	return d.attachEndpoints(ctx, s, c, missing, nil)
}

// missing returns the endpoints of c that belong on a switch and are not attached. The caller holds s.mu.
func (d *Daemon) missing(s *containerRuntime, c *network.Container) []*network.Endpoint {
	var list []*network.Endpoint
	for _, e := range c.Endpoints {
		if n := d.networkByID(e.NetworkID); s.attachments[e.ID] == nil && n != nil && n.HasInterfaces() {
			list = append(list, e)
		}
	}
	return list
}

// attachEndpoints makes the interfaces of the endpoints add in the sandbox of c and connects them to their switches,
// removes the interfaces remove, sets the default routes, and makes the DNS stub where it is missing. The caller holds
// s.mu.
func (d *Daemon) attachEndpoints(
	ctx context.Context, s *containerRuntime, c *network.Container, add []*network.Endpoint, remove []string,
) error {
	if !ownNetwork(c) {
		return nil
	}
	if c.IsVM() {
		return d.attachVMEndpoints(s, c, add)
	}
	req := sandbox.Request{Remove: remove, DefaultRoutes: d.defaultRoutes(c), Local: localAddrs(c)}
	bridges, leaves := make([]*bridge, len(add)), make([]func(), len(add))
	defer func() {
		for at, e := range add {
			if s.attachments[e.ID] == nil && leaves[at] != nil {
				leaves[at]()
			}
		}
	}()
	for at, e := range add {
		n, err := d.model.Network(e.NetworkID)
		if err != nil {
			return err
		}
		if bridges[at], err = d.bridgeFor(n); err != nil {
			return err
		}
		if leaves[at], err = d.joinVLAN(bridges[at], e.VLAN); err != nil {
			return err // before the container has an interface of which nothing would come
		}
		i := interfaceOf(e, bridges[at].MTU())
		i.Given, i.Persistent = c.Moves, c.Moves
		d.autoconfigure(&i, n, e)
		req.Add = append(req.Add, i)
		req.Routes = append(req.Routes, routesOf(e, bridges[at])...)
		d.updatePolicy(bridges[at])
	}
	if !c.Moves {
		req.Congestion = sandbox.CongestionOf(d.staysLocal(c))
	}
	if s.stub == nil && len(c.Endpoints) > 0 && !c.Moves {
		req.DNSStub = stubAddrOf(c)
	}
	reply, err := d.sandboxes.Configure(ctx, d.target(c), req)
	if err != nil {
		return errdefs.Internal("network of container %s: %w", c.Name, err)
	}
	if reply.DNSPacket != nil {
		s.stub = engine.NewStub(reply.DNSPacket, reply.DNSListener, reply.DNSRules)
		d.storeStub(s)
		s.stub.Serve(d.dns, d.stubClient(c.ID), d.log)
	}
	var errs []error
	for i, e := range add {
		f := reply.TAPs[e.Interface]
		if f == nil {
			errs = append(errs, fmt.Errorf("interface %s did not come out of the sandbox", e.Interface))
			continue
		}
		dev, err := tap.Open(f, !offload(e))
		if err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", e.Interface, err))
			continue
		}
		p, err := d.attachTAP(s, c, e, bridges[i], dev)
		if err != nil {
			if c.Attached && c.Status == network.Created {
				_ = dev.Discard() // it is nobody else's yet
			}
			errs = append(errs, err, dev.Close())
			continue
		}
		p.leave = leaves[i]
		p.port.Start()
		d.announce(bridges[i].record, e)
	}
	return errors.Join(errs...)
}

// staysLocal says whether what c's TCP sends stays on this machine, up to a gateway or a neighbour.
func (d *Daemon) staysLocal(c *network.Container) bool {
	return !slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool {
		n := d.networkByID(e.NetworkID)
		return n == nil || !n.TCPStaysLocal()
	})
}

// attachTAP connects a TAP to its network's switch, which writes to it from then on. Nothing is read from the TAP
// before the attachment's Start. The attachment owns dev; on an error the caller does.
func (d *Daemon) attachTAP(
	s *containerRuntime, c *network.Container, e *network.Endpoint, b *bridge, dev *tap.Device,
) (*attachment, error) {
	n := b.egress.Load()
	cfg, err := attachConfig(c, e, n)
	if err != nil {
		return nil, err
	}
	cfg.Addrs = d.allAddrs(b.record, e)
	// Sockets would be made in the namespace that the interface leaves, and bytes past the TAP would have no limit.
	if !c.Moves && e.Bandwidth == (network.Bandwidth{}) {
		cfg.Sockets = d.socketsOf(s, c)
	}
	cfg.From = limitOf(e.Bandwidth.EgressRate, e.Bandwidth.EgressBurst)
	cfg.To = limitOf(e.Bandwidth.IngressRate, e.Bandwidth.IngressBurst)
	port, err := b.Attach(cfg, dev)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", e.Interface, err)
	}
	d.catchUp(b, n, c.ID)
	p := &attachment{bridge: b, port: port, dev: dev, endpoint: e}
	s.attachments[e.ID] = p
	d.storeTAP(s, p)
	return p, nil
}

// attachConfig is what an endpoint is to the switch of its network n, whatever carries its frames.
func attachConfig(c *network.Container, e *network.Endpoint, n *network.Network) (engine.AttachConfig, error) {
	policy, err := egress(n, c.Egress, c.AllowEgress)
	return engine.AttachConfig{
		ID:           c.ID,
		Name:         c.Name,
		MAC:          net.HardwareAddr(e.MAC[:]),
		Addrs:        append(endpointAddrs(e), e.LinkLocal...),
		Unguarded:    !e.Settings().PortGuard,
		VLAN:         e.VLAN,
		HostLoopback: c.HostLoopback,
		Policy:       policy,
		Paused:       true,
	}, err
}

// limitOf is a rate in bits a second and a burst in bits as the switch has them.
func limitOf(rate, burst uint64) vswitch.Limit {
	return vswitch.Limit{PerSecond: float64(rate) / 8, Burst: float64(burst) / 8}
}

// socketsOf returns the pool of sockets of c's sandbox, and makes an empty one where there is none. The caller holds
// s.mu.
func (d *Daemon) socketsOf(s *containerRuntime, c *network.Container) *bypass.Pool {
	if s.sockets == nil {
		s.sockets = bypass.New(bypass.InSandbox(d.cfg.Helper, d.target(c)), func(err error) {
			d.log.Debug("connections go through the gateway", "container", c.Name, "error", err)
		})
	}
	return s.sockets
}

// detachEndpoint disconnects one endpoint from its switch and closes its TAP. The interface in the sandbox is removed
// by the agent, or ends with the sandbox.
func (s *containerRuntime) detachEndpoint(id string) {
	p := s.attachments[id]
	if p == nil {
		return
	}
	delete(s.attachments, id)
	_ = p.port.Detach() // an error of closing a TAP that is gone says nothing that could be acted on
	p.leave()
	if p.unstore != nil {
		p.unstore()
	}
}

// ownNetwork says whether c has a network namespace of its own that usernet configures.
func ownNetwork(c *network.Container) bool {
	return c.NetworkMode != network.HostName && !strings.HasPrefix(c.NetworkMode, "container:")
}

func offload(e *network.Endpoint) bool { return e.Settings().Offload }

func interfaceOf(e *network.Endpoint, mtu int) sandbox.Interface {
	i := sandbox.Interface{
		Name:      e.Interface,
		MAC:       net.HardwareAddr(e.MAC[:]),
		MTU:       mtu,
		LinkLocal: e.LinkLocal,
		Offload:   offload(e),
		IPv6:      e.IPv6.IsValid(),
	}
	if e.Unconfigured {
		i.LinkLocal = nil
		return i
	}
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if p.IsValid() {
			i.Addrs = append(i.Addrs, p)
		}
	}
	return i
}

// routesOf are the endpoint's own routes, and those to addresses of its network's gateway that are in none of its
// subnets.
func routesOf(e *network.Endpoint, b *bridge) (routes []sandbox.Route) {
	if e.Unconfigured {
		return nil
	}
	for _, r := range e.Routes {
		routes = append(routes, sandbox.Route{Dst: r.Dst, Via: r.Via, Interface: e.Interface})
	}
	for _, g := range b.Gateways() {
		own := e.IPv4
		if g.Addr().Is6() {
			own = e.IPv6
		}
		if own.IsValid() && !own.Contains(g.Addr()) {
			to := netip.PrefixFrom(g.Addr(), g.Addr().BitLen())
			routes = append(routes, sandbox.Route{Dst: to, Interface: e.Interface})
		}
	}
	return routes
}

// defaultRoutes are the default routes of c, one for each family at most, by Docker's rule.
func (d *Daemon) defaultRoutes(c *network.Container) []sandbox.Route {
	e4, e6 := network.DefaultRouteEndpoint(c, d.networkByID)
	var routes []sandbox.Route
	if e4 != nil && e4.Gateway4.IsValid() && !e4.Unconfigured {
		routes = append(routes,
			sandbox.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: e4.Gateway4, Interface: e4.Interface})
	}
	if e6 != nil && e6.Gateway6.IsValid() && !e6.Unconfigured {
		routes = append(routes,
			sandbox.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: e6.Gateway6, Interface: e6.Interface})
	}
	return routes
}
