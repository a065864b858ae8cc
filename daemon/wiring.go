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
	"github.com/usernet/usernet/switch/tap"
)

// sandboxState is a running container's live part.
type sandboxState struct {
	id string

	files sync.Mutex // held while hosts and resolv.conf are sent: they arrive in the order in which they were made

	netns atomic.Pointer[os.File] // what was attached by a descriptor; nil: it was not

	mu         sync.Mutex       // held while the container is changed; guards what follows
	plugs      map[string]*plug // by endpoint id
	bound      []binding
	stub       *engine.Stub       // nil: none
	forgetStub func()             // the service manager keeps it no longer; nil: it does not
	sockets    *bypass.Pool       // for direct connections; nil before the first endpoint
	stop       context.CancelFunc // ends the watch; nil before it starts
	unwatch    func()             // mu is not watched any more
	code       int                // exit status; set before ended is closed
	ended      chan struct{}      // closed when the container has ended
	removed    chan struct{}      // closed when the container has been removed
}

// plug is one endpoint's way onto its bridge.
type plug struct {
	on  *bridge
	at  *engine.Attachment // owns dev
	dev *tap.Device
	ep  *network.Endpoint

	forget func() // the service manager keeps dev no longer; nil: it does not
}

// box returns the live part of a container, making an empty one where there is none.
func (d *Daemon) box(id string) *sandboxState {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sandboxes[id]
	if s == nil {
		s = &sandboxState{id: id, plugs: map[string]*plug{}, ended: make(chan struct{}), removed: make(chan struct{})}
		s.unwatch = d.watchContainer(s)
		d.sandboxes[id] = s
	}
	return s
}

// wire makes the sandbox of c as the model says: interfaces, routes, stub, published ports. What is already there
// stays. On an error everything is undone that this call did. The caller holds s.mu.
func (d *Daemon) wire(ctx context.Context, s *sandboxState, c *network.Container) (err error) {
	defer func() {
		if err != nil {
			d.unwire(s)
		}
	}()
	if err := d.plugMissing(ctx, s, c); err != nil {
		return err
	}
	return d.publishAll(ctx, s, c)
}

// plugMissing adds the endpoints that are not there yet. The caller holds s.mu.
func (d *Daemon) plugMissing(ctx context.Context, s *sandboxState, c *network.Container) error {
	missing := d.missing(s, c)
	if len(missing) == 0 && s.stub != nil {
		return nil // whoever made the stub has done the rest as well
	}
	return d.plugIn(ctx, s, c, missing, nil)
}

// missing are the endpoints of c that are to be on a switch and are not. The caller holds s.mu.
func (d *Daemon) missing(s *sandboxState, c *network.Container) []*network.Endpoint {
	var list []*network.Endpoint
	for _, e := range c.Endpoints {
		if n := d.networkByID(e.NetworkID); s.plugs[e.ID] == nil && n != nil && n.HasInterfaces() {
			list = append(list, e)
		}
	}
	return list
}

// plugIn adds the endpoints add to the sandbox of c and takes the interfaces remove away, sets the default routes, and
// makes the DNS stub where it is missing. The caller holds s.mu.
func (d *Daemon) plugIn(ctx context.Context, s *sandboxState, c *network.Container, add []*network.Endpoint, remove []string) error {
	if !ownNetwork(c) {
		return nil
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
		req.Add = append(req.Add, interfaceOf(e, bridges[i].MTU()))
	}
	if s.stub == nil && len(c.Endpoints) > 0 {
		req.DNSStub = stubAddrOf(c)
	}
	reply, err := d.inside.Configure(ctx, d.target(c), req)
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
		p, err := d.plugTAP(s, c, e, bridges[i], dev)
		if err != nil {
			errs = append(errs, err, dev.Close())
			continue
		}
		p.at.Start()
	}
	return errors.Join(errs...)
}

// ownNetwork says whether c has a network namespace of its own for usernet to furnish.
func ownNetwork(c *network.Container) bool {
	return c.NetworkMode != network.HostName && !strings.HasPrefix(c.NetworkMode, "container:")
}

// plugTAP connects a TAP to its bridge, which can write to it from then on. It is read once the attachment starts. Where it
// fails dev stays the caller's.
func (d *Daemon) plugTAP(s *sandboxState, c *network.Container, e *network.Endpoint, b *bridge, dev *tap.Device) (*plug, error) {
	policy, err := egress(b.record, c.Egress, c.AllowEgress)
	if err != nil {
		return nil, err
	}
	at, err := b.Attach(engine.AttachConfig{
		ID:           c.ID,
		Name:         c.Name,
		MAC:          net.HardwareAddr(e.MAC[:]),
		Addrs:        append(endpointAddrs(e), e.LinkLocal...),
		Unguarded:    !e.Settings().PortGuard,
		HostLoopback: c.HostLoopback,
		Policy:       policy,
		Sockets:      d.socketsOf(s, c),
		Paused:       true,
	}, dev)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", e.Interface, err)
	}
	p := &plug{on: b, at: at, dev: dev, ep: e}
	s.plugs[e.ID] = p
	d.storeTAP(s, p)
	return p, nil
}

// unplug takes one endpoint off its bridge. The interface inside goes with the agent's Remove, or with the sandbox.
func (s *sandboxState) unplug(id string) {
	p := s.plugs[id]
	if p == nil {
		return
	}
	delete(s.plugs, id)
	_ = p.at.Detach() // there is nobody to tell what a TAP that is gone says when it is closed
	if p.forget != nil {
		p.forget()
	}
}

// unwire closes all that the daemon holds of a sandbox, and waits for its readers. The caller holds s.mu.
func (d *Daemon) unwire(s *sandboxState) {
	d.unpublishAll(s)
	if len(s.plugs) > 0 || s.stub != nil {
		defer d.awaitStore()
	}
	for id := range s.plugs {
		s.unplug(id)
	}
	s.closeStub()
	if s.sockets != nil {
		s.sockets.Close()
		s.sockets = nil
	}
}

// closeStub closes the DNS stub, where there is one. The caller holds s.mu.
func (s *sandboxState) closeStub() {
	s.stub.Close()
	s.stub = nil
	if s.forgetStub != nil {
		s.forgetStub()
		s.forgetStub = nil
	}
}

func offload(e *network.Endpoint) bool { return e.Settings().Offload }

func interfaceOf(e *network.Endpoint, mtu int) sandbox.Interface {
	i := sandbox.Interface{
		Name: e.Interface, MAC: net.HardwareAddr(e.MAC[:]), MTU: mtu, LinkLocal: e.LinkLocal,
		Offload: offload(e), IPv6: e.IPv6.IsValid(),
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
		routes = append(routes, sandbox.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: e4.Gateway4, Interface: e4.Interface})
	}
	if e6 != nil && e6.Gateway6.IsValid() && !e6.Unconfigured {
		routes = append(routes, sandbox.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: e6.Gateway6, Interface: e6.Interface})
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
