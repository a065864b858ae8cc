package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/tap"
)

// containerRuntime is what the daemon holds open for one running container. It can be thrown away and made again from
// the model's record, which is what a restart does.
type containerRuntime struct {
	id string

	// files is held while hosts and resolv.conf are sent, so that the latest version arrives last.
	files sync.Mutex

	// netns is the network namespace of a container that was attached by a descriptor; nil for all others.
	netns atomic.Pointer[os.File]

	mu          sync.Mutex             // held while the container is changed; guards the fields below
	attachments map[string]*attachment // by endpoint id
	bound       []binding
	stub        *engine.Stub       // nil: none
	unstoreStub func()             // removes the stub from the service manager's store; nil: it is not there
	sockets     *bypass.Pool       // of the bypass; nil before the first endpoint
	stop        context.CancelFunc // ends the watch; nil before it starts
	unwatch     func()             // ends the watchdog's watch of mu
	code        int                // exit status; set before ended is closed
	ended       chan struct{}      // closed when the container has ended
	removed     chan struct{}      // closed when the container has been removed
}

// attachment connects one endpoint to its network: a TAP in the sandbox, or a virtual machine's socket, and the switch
// port that it is read into.
type attachment struct {
	bridge   *bridge
	port     *engine.Attachment // owns dev
	dev      *tap.Device        // nil: a virtual machine has the endpoint
	endpoint *network.Endpoint

	unstore func() // removes dev from the service manager's store; nil: it is not there
}

// runtime returns the runtime of a container, and makes an empty one where there is none.
func (d *Daemon) runtime(id string) *containerRuntime {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.runtimes[id]
	if s == nil {
		s = &containerRuntime{
			id:          id,
			attachments: map[string]*attachment{},
			ended:       make(chan struct{}),
			removed:     make(chan struct{}),
		}
		s.unwatch = d.watchContainer(s)
		d.runtimes[id] = s
	}
	return s
}

// setup gives the sandbox of c what the model says: interfaces, routes, DNS stub, published ports. What is already
// there stays. On an error it tears the runtime down. The caller holds s.mu.
func (d *Daemon) setup(ctx context.Context, s *containerRuntime, c *network.Container) (err error) {
	defer func() {
		if err != nil {
			s.discardMoving(c)
			d.teardown(s)
		}
	}()
	if err := d.attachMissing(ctx, s, c); err != nil {
		return err
	}
	return d.publishAll(ctx, s, c)
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
	bridges := make([]*bridge, len(add))
	for i, e := range add {
		n, err := d.model.Network(e.NetworkID)
		if err != nil {
			return err
		}
		if bridges[i], err = d.bridgeFor(n); err != nil {
			return err
		}
		i := interfaceOf(e, bridges[i].MTU())
		i.Given, i.Persistent = c.Moves, c.Moves
		req.Add = append(req.Add, i)
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
			if c.Moves && c.Status == network.Created {
				_ = dev.Discard() // it is nobody else's yet
			}
			errs = append(errs, err, dev.Close())
			continue
		}
		p.port.Start()
	}
	return errors.Join(errs...)
}

// ownNetwork says whether c has a network namespace of its own that usernet configures.
func ownNetwork(c *network.Container) bool {
	return c.NetworkMode != network.HostName && !strings.HasPrefix(c.NetworkMode, "container:")
}

// attachTAP connects a TAP to its network's switch, which writes to it from then on. Nothing is read from the TAP
// before the attachment's Start. The attachment owns dev; on an error the caller does.
func (d *Daemon) attachTAP(
	s *containerRuntime, c *network.Container, e *network.Endpoint, b *bridge, dev *tap.Device,
) (*attachment, error) {
	cfg, err := attachConfig(c, e, b)
	if err != nil {
		return nil, err
	}
	// The namespace of whoever moves it is not the one to make sockets in, and what bypasses the TAP has no bound.
	if !c.Moves && e.Bandwidth == (network.Bandwidth{}) {
		cfg.Sockets = d.socketsOf(s, c)
	}
	cfg.From = limitOf(e.Bandwidth.EgressRate, e.Bandwidth.EgressBurst)
	cfg.To = limitOf(e.Bandwidth.IngressRate, e.Bandwidth.IngressBurst)
	port, err := b.Attach(cfg, dev)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", e.Interface, err)
	}
	p := &attachment{bridge: b, port: port, dev: dev, endpoint: e}
	s.attachments[e.ID] = p
	d.storeTAP(s, p)
	return p, nil
}

// attachConfig is what an endpoint is to its network's switch, whatever carries its frames.
func attachConfig(c *network.Container, e *network.Endpoint, b *bridge) (engine.AttachConfig, error) {
	policy, err := egress(b.record, c.Egress, c.AllowEgress)
	return engine.AttachConfig{
		ID:           c.ID,
		Name:         c.Name,
		MAC:          net.HardwareAddr(e.MAC[:]),
		Addrs:        append(endpointAddrs(e), e.LinkLocal...),
		Unguarded:    !e.Settings().PortGuard,
		HostLoopback: c.HostLoopback,
		Policy:       policy,
		Paused:       true,
	}, err
}

// limitOf is a rate in bits a second and a burst in bits as the switch has them.
func limitOf(rate, burst uint64) vswitch.Limit {
	return vswitch.Limit{PerSecond: float64(rate) / 8, Burst: float64(burst) / 8}
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
	if p.unstore != nil {
		p.unstore()
	}
}

// teardown closes all descriptors that lead into a sandbox, and waits for the goroutines that read them. The caller
// holds s.mu.
func (d *Daemon) teardown(s *containerRuntime) {
	d.unpublishAll(s)
	if len(s.attachments) > 0 || s.stub != nil {
		defer d.awaitStore()
	}
	for id := range s.attachments {
		s.detachEndpoint(id)
	}
	s.closeStub()
	if s.sockets != nil {
		s.sockets.Close()
		s.sockets = nil
	}
}

// closeStub closes the DNS stub, where there is one. The caller holds s.mu.
func (s *containerRuntime) closeStub() {
	s.stub.Close()
	s.stub = nil
	if s.unstoreStub != nil {
		s.unstoreStub()
		s.unstoreStub = nil
	}
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

func (d *Daemon) networkByID(id string) *network.Network {
	n, err := d.model.Network(id)
	if err != nil {
		return nil
	}
	return n
}
