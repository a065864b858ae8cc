package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// publishAll binds what was asked for when the container was made, and since.
func (d *Daemon) publishAll(ctx context.Context, s *containerRuntime, c *network.Container) error {
	if s.bound.Len() > 0 || !c.PublishAll && !d.model.PublishesPorts(c.ID) {
		return nil
	}
	c, err := d.model.Container(c.ID)
	if err != nil {
		return err
	}
	asked := c.Ports
	if c.PublishAll {
		covered := map[network.PortProto]bool{}
		for _, b := range c.Ports {
			for i := range b.Count() {
				covered[network.PortProto{Port: b.Port + uint16(i), Proto: b.Proto}] = true
			}
		}
		for _, x := range c.Exposed {
			if !covered[x] {
				asked = append(asked,
					network.PortBinding{Port: x.Port, End: x.Port, Proto: x.Proto, FromPublishAll: true})
			}
		}
	}
	return d.publishOnSamePorts(ctx, s, c, asked)
}

// publish binds ports on the network that has the container's default route, and returns them as they are bound. The
// caller holds s.mu.
func (d *Daemon) publish(
	ctx context.Context, s *containerRuntime, c *network.Container, ports []network.PortBinding,
) ([]network.PortBinding, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	e4, e6 := network.DefaultRouteEndpoint(c, d.networkByID)
	e := e4
	if e == nil {
		e = e6
	}
	if e == nil || s.attachments[e.ID] == nil {
		d.log.Warn("ports not published: the container is on internal networks only", "container", c.Name)
		return nil, nil
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
		return nil, errdefs.Internal("driver failed programming external connectivity on endpoint %s (%s): %w", c.Name, e.ID,
			err)
	}
	s.boundOn = p.bridge
	added := make([]network.PortBinding, len(bound))
	for i, b := range bound {
		added[i] = b.Binding()
		s.bound.Add(added[i])
	}
	return added, nil
}

func (d *Daemon) unpublishAll(s *containerRuntime) {
	all := s.bound.All()
	s.bound = ports.List{}
	d.close(s, all)
}

// close closes ports that are bound, and no longer in s.bound.
func (d *Daemon) close(s *containerRuntime, bound []network.PortBinding) {
	if len(bound) == 0 {
		return
	}
	list := make([]publish.Bound, len(bound))
	for i, b := range bound {
		list[i] = b.Bound()
	}
	if err := s.boundOn.Unpublish(list); err != nil {
		d.log.Debug("unpublish", "error", err)
	}
}

// unpublish closes the ports that some of drop name.
func (d *Daemon) unpublish(s *containerRuntime, drop []network.PortBinding) {
	var gone []network.PortBinding
	for _, p := range drop {
		keys, list := s.bound.Named(p)
		gone = append(gone, list...)
		for _, key := range keys {
			s.bound.Delete(key)
		}
	}
	d.close(s, gone)
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
	added, err := d.publish(ctx, s, c, ports)
	if err != nil {
		return nil, err
	}
	if err := d.model.AddPorts(c.ID, ports, added); err != nil {
		d.unpublish(s, added)
		return nil, err
	}
	d.updateLinksTo(c)
	return published(added), nil
}

// UnpublishPorts takes published ports away. Each of drop names a container port, and its host port where that is not
// 0.
func (d *Daemon) UnpublishPorts(_ context.Context, ref string, drop []network.PortBinding) error {
	s, c, err := d.running(ref)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, p := range drop {
		if keys, _ := s.bound.Named(p); len(keys) == 0 {
			return errdefs.NotFound(
				"container %s does not publish %d/%s as asked; `usernet port %s` lists what it does", c.Name, p.Port,
				p.Proto, c.Name)
		}
	}
	bound := func(b network.PortBinding) []network.PortBinding {
		_, list := s.bound.Named(b)
		return list
	}
	if err := d.model.RemovePorts(c.ID, drop, bound); err != nil {
		return err
	}
	d.unpublish(s, drop)
	d.updateLinksTo(c)
	return nil
}

// Published lists the live published ports of a container.
func (d *Daemon) Published(ref string) ([]api.Published, error) {
	c, err := d.model.ContainerWithoutPorts(ref)
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
	return published(s.bound.All()), nil
}

func published(list []network.PortBinding) []api.Published {
	out := make([]api.Published, len(list))
	for i, b := range list {
		out[i] = b.Bound()
	}
	slices.SortFunc(out, func(a, b api.Published) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host))
	})
	return out
}
