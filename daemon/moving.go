package daemon

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/switch/tap"
)

// An engine that configures the interfaces of its network plugins itself, as dockerd does, wants to find one in its own
// network namespace, which it then moves to the container's and gives a name, addresses and routes. The descriptor of
// the TAP goes on to carry its frames. The daemon asks that descriptor where the interface is now, for two reasons: a
// daemon that comes after a crash has to find the TAP, and an interface that is gone has ended with its container.
//
// Such a container's namespace is not held open: a TAP whose descriptor comes from another namespace goes with it, and
// that is how its end is noticed where the engine does not say so.

// attachMoving makes the container of a key.
func (d *Daemon) attachMoving(
	ctx context.Context, key string, spec network.ContainerSpec, netns *os.File,
) (*network.Container, error) {
	if key == "" || len(spec.Networks) != 1 || spec.Networks[0].Interface == "" {
		return nil, errdefs.Invalid("an interface that is moved on needs a key, a name and one network")
	}
	if len(d.attachedWith(key)) > 0 {
		return nil, errdefs.Conflict("key %q is being attached by another request", key)
	}
	spec.Networks = slices.Clone(spec.Networks)
	spec.Networks[0].Unconfigured, spec.Moves = true, true
	return d.attachFirst(ctx, spec, api.Started{}, netns)
}

// setAliases gives the one endpoint of c those that the networks of a request have.
func (d *Daemon) setAliases(c *network.Container, want []network.NamedEndpointSpec) (*network.Container, error) {
	if !c.Moves || len(c.Endpoints) != 1 || len(want) != 1 {
		return nil, errdefs.Conflict("the key is that of container %s, which has %d networks", c.Name, len(c.Endpoints))
	}
	aliases := want[0].Aliases
	if slices.Equal(c.Endpoints[0].Aliases, aliases) {
		return c, nil
	}
	c, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Endpoints[0].Aliases = slices.Clone(aliases)
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.updateNames(c.ID)
	return d.model.Container(c.ID)
}

// errMoves refuses what the engine of a container has to do itself.
func errMoves(c *network.Container) error {
	return errdefs.Conflict("the interfaces of container %s are its engine's: use `docker network connect` or "+
		"`disconnect` there", c.Name)
}

// How often the daemon looks where an interface is: engines move it within seconds after it was made, and rarely later.
const (
	followSoon  = 100 * time.Millisecond
	followLater = 2 * time.Second
	followUntil = time.Minute // after this it is later
)

// follow notes where the interface of s is, and returns true when it is gone, or false when ctx ends.
func (d *Daemon) follow(ctx context.Context, s *containerRuntime) bool {
	begin := time.Now()
	for {
		err := d.noteMove(s)
		switch {
		case errors.Is(err, tap.ErrGone):
			return true
		case errors.Is(err, unix.ENOTTY): // a veth pair, whose end the engine says
			<-ctx.Done()
			return false
		case err != nil && ctx.Err() == nil:
			d.log.Debug("where an interface is now is not known", "container", s.id, "error", err)
		}
		wait := followSoon
		if time.Since(begin) > followUntil {
			wait = followLater
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// noteMove stores where the interface of s is, if it is not where it was.
func (d *Daemon) noteMove(s *containerRuntime) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.attachments {
		netns, name, err := p.dev.Where()
		if err != nil {
			return err
		}
		id, err := sandbox.NetworkNamespace(netns)
		_ = netns.Close()
		if err != nil {
			return err
		}
		if c, err := d.model.Container(s.id); err != nil || c.NetNSID == network.NamespaceID(id) &&
			p.endpoint.Interface == name {
			return err
		}
		if err := d.moved(s, p, network.NamespaceID(id), name); err != nil {
			return err
		}
	}
	return nil
}

// moved stores that the interface of an attachment is in another namespace. The caller holds s.mu.
func (d *Daemon) moved(s *containerRuntime, p *attachment, id network.NamespaceID, name string) error {
	c, err := d.model.UpdateContainer(s.id, func(c *network.Container) error {
		c.NetNSID = id
		for _, e := range c.Endpoints {
			if e.ID == p.endpoint.ID {
				e.Interface = name
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range c.Endpoints {
		if e.ID == p.endpoint.ID {
			p.endpoint = e
		}
	}
	if p.unstore != nil { // it is stored by its name
		p.unstore()
		d.storeTAP(s, p)
	}
	s.dropNamespace()
	d.log.Info("interface has moved", "container", c.Name, "interface", name)
	return nil
}

// discardMoving has the interfaces of a container go with their descriptors where its engine moves them: they may be in
// any namespace. The caller holds s.mu.
func (s *containerRuntime) discardMoving(c *network.Container) {
	if !c.Moves {
		return
	}
	for _, p := range s.attachments {
		_ = p.dev.Discard() // of a veth pair nothing goes: removeInterfaces does that
	}
}
