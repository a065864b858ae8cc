package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// binding is one published port as it is bound now, and where.
type binding struct {
	bridge *bridge
	bound  publish.Bound
}

// publishAll binds what was asked for when the container was made.
func (d *Daemon) publishAll(ctx context.Context, s *containerRuntime, c *network.Container) error {
	if len(s.bound) > 0 {
		return nil
	}
	ports := slices.Clone(c.Ports)
	if c.PublishAll {
		for _, x := range c.Exposed {
			if !slices.ContainsFunc(ports, func(b network.PortBinding) bool { return b.Covers(x) }) {
				ports = append(ports,
					network.PortBinding{Port: x.Port, End: x.Port, Proto: x.Proto, FromPublishAll: true})
			}
		}
	}
	return d.publishOnSamePorts(ctx, s, c, ports)
}

// publish binds ports on the network that has the container's default route. The caller holds s.mu.
func (d *Daemon) publish(
	ctx context.Context, s *containerRuntime, c *network.Container, ports []network.PortBinding,
) error {
	if len(ports) == 0 {
		return nil
	}
	e4, e6 := network.DefaultRouteEndpoint(c, d.networkByID)
	e := e4
	if e == nil {
		e = e6
	}
	if e == nil || s.attachments[e.ID] == nil {
		d.log.Warn("ports not published: the container is on internal networks only", "container", c.Name)
		return nil
	}
	p := s.attachments[e.ID]
	var in4, in6 netip.Addr
	if e.IPv4.IsValid() {
		in4 = e.IPv4.Addr()
	}
	if e6 != nil && e6.NetworkID == e.NetworkID && e6.IPv6.IsValid() {
		in6 = e6.IPv6.Addr()
	}
	def := p.bridge.record.Settings().HostBinding4
	ports = slices.Clone(ports)
	for i := range ports {
		if !ports[i].HostIP.IsValid() {
			ports[i].HostIP = def
		}
	}
	bound, err := p.bridge.Publish(ctx, p.port, engine.Publication{IPv4: in4, IPv6: in6, Ports: ports})
	if err != nil {
		return errdefs.Internal("driver failed programming external connectivity on endpoint %s (%s): %w", c.Name, e.ID,
			err)
	}
	for _, b := range bound {
		s.bound = append(s.bound, binding{p.bridge, b})
	}
	return nil
}

func (d *Daemon) unpublishAll(s *containerRuntime) {
	d.unpublish(s, func(binding) bool { return true })
}

// unpublish closes the bindings that match.
func (d *Daemon) unpublish(s *containerRuntime, match func(binding) bool) {
	byBridge := map[*bridge][]publish.Bound{}
	s.bound = slices.DeleteFunc(s.bound, func(b binding) bool {
		if !match(b) {
			return false
		}
		byBridge[b.bridge] = append(byBridge[b.bridge], b.bound)
		return true
	})
	for b, list := range byBridge {
		if err := b.Unpublish(list); err != nil {
			d.log.Debug("unpublish", "error", err)
		}
	}
}

// running finds a container with a live sandbox, and locks it; the caller unlocks.
func (d *Daemon) running(ref string) (*containerRuntime, *network.Container, error) {
	s, c, err := d.lockContainer(ref)
	if err != nil {
		return nil, nil, err
	}
	if c.Status != network.Running {
		s.mu.Unlock()
		return nil, nil, errdefs.Conflict("container %s is not running", c.Name)
	}
	return s, c, nil
}

// PublishPorts adds published ports to a running container: all of them or, with an error, none.
func (d *Daemon) PublishPorts(ctx context.Context, ref string, ports []network.PortBinding) ([]api.Published, error) {
	s, c, err := d.running(ref)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	before := len(s.bound)
	if err := d.publish(ctx, s, c, ports); err != nil {
		return nil, err
	}
	added := slices.Clone(s.bound[before:])
	_, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Ports, c.Bound = append(c.Ports, ports...), hostPortsOf(s)
		return nil
	})
	if err != nil {
		d.unpublish(s, func(b binding) bool { return slices.Contains(added, b) })
		return nil, err
	}
	d.updateNames(c.ID) // links to it lead to these too
	return published(added), nil
}

// UnpublishPorts takes published ports away. Each of ports names a container port, and its host port where that is not
// 0.
func (d *Daemon) UnpublishPorts(_ context.Context, ref string, ports []network.PortBinding) error {
	s, c, err := d.running(ref)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	match := func(p network.PortBinding) func(binding) bool {
		return func(b binding) bool {
			in := p.Covers(network.PortProto{Port: b.bound.Port, Proto: b.bound.Proto})
			host := p.HostPort == 0 ||
				p.HostPort <= b.bound.Host.Port() && b.bound.Host.Port() <= max(p.HostPort, p.HostEnd)
			return in && host && (!p.HostIP.IsValid() || p.HostIP == b.bound.Host.Addr())
		}
	}
	for _, p := range ports {
		if !slices.ContainsFunc(s.bound, match(p)) {
			return errdefs.NotFound(
				"container %s does not publish %d/%s as asked; `usernet port %s` lists what it does", c.Name, p.Port,
				p.Proto, c.Name)
		}
	}
	_, err = d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Ports = subtract(addressed(c.Ports, ports, s.bound), ports)
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range ports {
		d.unpublish(s, match(p))
	}
	d.updateNames(c.ID)
	return nil
}

// addressed returns have with ports of all addresses as ports of those that they are bound at, where drop names one of
// these: else the others could not be left.
func addressed(have, drop []network.PortBinding, bound []binding) []network.PortBinding {
	var list []network.PortBinding
	for _, h := range have {
		if !mayName(drop, h) { // thousands of ports are dropped one by one: bound is gone through for few of have
			list = append(list, h)
			continue
		}
		var single []network.PortBinding
		named := false
		for _, b := range bound {
			port, host := b.bound.Port, b.bound.Host
			if !h.Covers(network.PortProto{Port: port, Proto: b.bound.Proto}) ||
				h.HostPort != 0 && (host.Port() < h.HostPort || host.Port() > max(h.HostPort, h.HostEnd)) {
				continue
			}
			named = named || slices.ContainsFunc(drop, func(p network.PortBinding) bool {
				return p.HostIP == host.Addr() && p.Covers(network.PortProto{Port: port, Proto: b.bound.Proto})
			})
			one := network.PortBinding{HostIP: host.Addr(), Port: port, End: port, Proto: h.Proto}
			if h.HostPort != 0 {
				one.HostPort, one.HostEnd = host.Port(), host.Port()
			}
			single = append(single, one)
		}
		if named {
			list = append(list, single...)
		} else {
			list = append(list, h)
		}
	}
	return list
}

// mayName says whether drop may name, by its address, one of the ports that h has at all addresses.
func mayName(drop []network.PortBinding, h network.PortBinding) bool {
	return !h.HostIP.IsValid() && slices.ContainsFunc(drop, func(p network.PortBinding) bool {
		return p.HostIP.IsValid() && p.Port <= max(h.Port, h.End) && h.Port <= max(p.Port, p.End) &&
			(p.HostPort == 0 || h.HostPort == 0 ||
				p.HostPort <= max(h.HostPort, h.HostEnd) && h.HostPort <= max(p.HostPort, p.HostEnd))
	})
}

// subtract removes from have the single ports that drop names; a range is split into what is left of it.
func subtract(have, drop []network.PortBinding) []network.PortBinding {
	var left []network.PortBinding
	for _, h := range have {
		for i := range h.Count() {
			one := h
			one.Port, one.End = h.Port+uint16(i), h.Port+uint16(i)
			ranged := h.End > h.Port && h.HostPort != 0
			if ranged {
				one.HostPort, one.HostEnd = h.HostPort+uint16(i), h.HostPort+uint16(i)
			}
			gone := slices.ContainsFunc(drop, func(p network.PortBinding) bool {
				return p.Covers(network.PortProto{Port: one.Port, Proto: one.Proto}) &&
					(p.HostPort == 0 || one.HostPort == 0 || p.HostPort <= one.HostPort &&
						one.HostPort <= max(p.HostPort, p.HostEnd)) &&
					(!p.HostIP.IsValid() || p.HostIP == one.HostIP)
			})
			if !gone {
				left = append(left, one)
			}
		}
	}
	if len(left) == countPorts(have) {
		return have // nothing dropped: ranges stay whole
	}
	return left
}

func countPorts(list []network.PortBinding) int {
	n := 0
	for _, b := range list {
		n += b.Count()
	}
	return n
}

// Published lists the live published ports of a container.
func (d *Daemon) Published(ref string) ([]api.Published, error) {
	c, err := d.model.Container(ref)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	s := d.runtimes[c.ID]
	d.mu.Unlock()
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return published(s.bound), nil
}

func published(list []binding) []api.Published {
	out := make([]api.Published, len(list))
	for i, b := range list {
		out[i] = b.bound
	}
	slices.SortFunc(out, func(a, b api.Published) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host))
	})
	return out
}
