package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// A namespace that comes as a descriptor is known by device and inode, and stands for one container whatever number of
// networks it is attached to. The descriptor is kept, so that its interfaces can be taken away at the end, also when no
// path and no process leads to it any more.

// Attach implements api.Backend.
func (d *Daemon) Attach(ctx context.Context, q api.AttachRequest, netns *os.File) (made *network.Container, err error) {
	defer func() {
		if err != nil { // some runtimes swallow what their hooks say
			d.log.Info("a namespace was not attached", "key", q.Key, "name", q.Spec.Name, "error", err)
		}
	}()
	d.detachLeftFirst()
	if q.Spec.VM.Kind != "" {
		if netns != nil {
			return nil, errors.Join(errdefs.Invalid("a virtual machine has no network namespace"), netns.Close())
		}
		return d.attachVM(ctx, q)
	}
	if q.Moves && q.Key != "" {
		if have := d.attachedWith(q.Key); len(have) > 0 {
			if netns != nil {
				_ = netns.Close()
			}
			return d.setAliases(have[0], q.Spec.Networks)
		}
	}
	if netns == nil {
		return nil, errdefs.Invalid("the descriptor of a network namespace has to come with the request (SCM_RIGHTS)")
	}
	defer netns.Close()
	ns, err := sandbox.NetworkNamespace(netns)
	if err != nil {
		return nil, errdefs.Invalid("network namespace: %w", err)
	}
	owner, err := sandbox.OwnerOf(netns)
	if err != nil {
		return nil, errdefs.Invalid("user namespace of the network namespace: %w", err)
	}
	id := network.NamespaceID(ns)
	done, err := d.attaching.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := checkLocalAddrs(q.Spec); err != nil {
		return nil, err
	}
	spec := q.Spec
	spec.Attached, spec.NetNSID, spec.UserNSID = true, id, network.NamespaceID(owner)
	if len(spec.Networks) == 0 {
		spec.Networks = []network.NamedEndpointSpec{{Network: spec.NetworkMode}}
	}
	for i := range spec.Networks {
		spec.Networks[i].Key = q.Key
	}
	if q.Moves {
		return d.attachMoving(ctx, q.Key, spec, netns)
	}
	if q.Key != "" {
		if err := d.detachOthers(ctx, q.Key, id); err != nil {
			return nil, err
		}
	}
	if c := d.attachedIn(id); c != nil {
		if err := d.repair(ctx, c, netns); err != nil {
			return nil, err
		}
		made, err := d.attachMore(ctx, c, spec)
		if _, gone := d.model.Container(c.ID); err == nil || gone == nil {
			return made, err
		} // else it has ended meanwhile
	}
	return d.attachFirst(ctx, spec, api.Started{Pid: q.Pid, Holder: q.Holder}, netns)
}

// maxLocalAddrs bounds the addresses that an attachment adds to a loopback interface: a runtime has one for its
// services.
const maxLocalAddrs = 16

// checkLocalAddrs refuses what the loopback interface cannot have.
func checkLocalAddrs(spec network.ContainerSpec) error {
	if a := spec.DNSAddr; a.IsValid() && (!a.Is4() || !a.IsLoopback() && !usableLocally(a)) {
		return errdefs.Invalid("address of the name server in the sandbox: %s is not an IPv4 address of one machine", a)
	}
	if len(spec.LocalAddrs) > maxLocalAddrs {
		return errdefs.Invalid("%d addresses for the loopback interface: there may be %d", len(spec.LocalAddrs),
			maxLocalAddrs)
	}
	for _, a := range spec.LocalAddrs {
		if !usableLocally(a) {
			return errdefs.Invalid("address for the loopback interface: %s is not an IPv4 address of one machine", a)
		}
	}
	return nil
}

func usableLocally(a netip.Addr) bool {
	return a.Is4() && (a.IsGlobalUnicast() || a.IsLinkLocalUnicast()) && !a.IsMulticast()
}

// repair makes the network of an attached container again of which this daemon has lost the namespace's descriptor. Its
// addresses and ports stay. Where the descriptor is there it does nothing.
func (d *Daemon) repair(ctx context.Context, c *network.Container, netns *os.File) error {
	s := d.runtime(c.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.netns.Load() != nil || c.Holder == 0 {
		return nil
	}
	if err := d.keepNamespace(s, netns); err != nil {
		return err
	}
	if err := d.attachMissing(ctx, s, c); err != nil {
		d.teardown(s)
		s.dropNamespace()
		return err
	}
	if err := d.publishAll(ctx, s, c); err != nil {
		d.log.Error("ports of container are not published any more; publish them again with `usernet port`",
			"container", c.Name, "error", err)
	}
	d.storeHostPorts(s, c)
	d.log.Info("container has its network again", "container", c.Name)
	return nil
}

// attachedIn is the running container that stands for a namespace, or nil.
func (d *Daemon) attachedIn(id network.NamespaceID) *network.Container {
	for _, c := range d.model.Find(network.InNetNS(id)) {
		if c.Attached && !c.Moves && c.Status == network.Running {
			return c
		}
	}
	return nil
}

// attachedWith returns the attached containers that have an endpoint with a key.
func (d *Daemon) attachedWith(key string) []*network.Container {
	return d.model.Find(network.WithKey(key))
}

// hasKey says whether c has an endpoint with a key.
func hasKey(c *network.Container, key string) bool {
	return slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool { return e.Key == key })
}

// detachOthers ends what is attached with a key in other namespaces: the caller's sandbox was made anew.
func (d *Daemon) detachOthers(ctx context.Context, key string, id network.NamespaceID) error {
	for _, c := range d.attachedWith(key) {
		if c.NetNSID != id {
			if err := d.detachKey(ctx, c, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// attachFirst makes a container of a namespace. On an error nothing is left of it.
func (d *Daemon) attachFirst(
	ctx context.Context, spec network.ContainerSpec, p api.Started, netns *os.File,
) (*network.Container, error) {
	c, _, err := d.CreateContainer(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := d.keepNamespace(d.runtime(c.ID), netns); err != nil {
		_ = d.RemoveContainer(ctx, c.ID, true)
		return nil, err
	}
	if _, err := d.StartContainer(ctx, c.ID, p); err != nil {
		_ = d.RemoveContainer(context.WithoutCancel(ctx), c.ID, true)
		return nil, err
	}
	return d.model.Container(c.ID)
}

// attachMore connects the container that stands for a namespace to those of spec's networks that it is not on with its
// key. On an error it is on those that it was on before.
func (d *Daemon) attachMore(
	ctx context.Context, c *network.Container, spec network.ContainerSpec,
) (made *network.Container, err error) {
	var added []string
	defer func() {
		if err == nil {
			return
		}
		for _, n := range added {
			err = errors.Join(err, d.Disconnect(context.WithoutCancel(ctx), n, c.ID, true))
		}
	}()
	for _, want := range spec.Networks {
		name := want.Network
		if name == "" || name == "default" {
			name = network.BridgeName
		}
		n, err := d.model.Network(name)
		if err != nil {
			return nil, err
		}
		e := want.EndpointSpec
		if have := attachedBefore(c, n.ID, e.Key); have != nil {
			if err := sameRequest(have, e); err != nil {
				return nil, err
			}
			continue
		}
		if spec.Name != "" && spec.Name != c.Name && n.Name != network.BridgeName {
			e.Aliases = append(slices.Clone(e.Aliases), spec.Name)
		}
		if err := d.Connect(ctx, n.ID, c.ID, e); err != nil {
			return nil, err
		}
		added = append(added, n.ID)
	}
	if len(added) > 0 && len(spec.Ports) > 0 {
		if _, err := d.PublishPorts(ctx, c.ID, spec.Ports); err != nil {
			return nil, err
		}
	}
	return d.model.Container(c.ID)
}

// attachedBefore is the endpoint of c that a request with this key has attached to a network; nil: there is none.
func attachedBefore(c *network.Container, networkID, key string) *network.Endpoint {
	for _, e := range c.Endpoints {
		if key != "" && e.Key == key && e.NetworkID == networkID {
			return e
		}
	}
	return nil
}

// sameRequest refuses a request that is repeated with the key of an endpoint and asks for another interface, MAC
// address or address than that has. What it leaves open is as it is.
func sameRequest(have *network.Endpoint, want network.EndpointSpec) error {
	for _, c := range []struct {
		what       string
		asked      bool
		have, want any
	}{
		{"interface", want.Interface != "", have.Interface, want.Interface},
		{"MAC address", want.MAC != network.MAC{}, have.MAC, want.MAC},
		{"IPv4 address", want.IPv4.IsValid(), have.IPv4.Addr(), want.IPv4},
		{"IPv6 address", want.IPv6.IsValid(), have.IPv6.Addr(), want.IPv6},
	} {
		if c.asked && c.have != c.want {
			return errdefs.Conflict("key %q has network %s with the %s %v, not %v: detach it first, or use another key",
				want.Key, have.Network, c.what, c.have, c.want)
		}
	}
	return nil
}

// Detach implements api.Backend. What was not attached, or has ended, is no error: a runtime may ask twice.
func (d *Daemon) Detach(ctx context.Context, key string) error {
	if key == "" { // which all have that were attached without one
		return errdefs.Invalid("no key is given")
	}
	for _, c := range d.attachedWith(key) {
		done, err := d.attaching.take(ctx, c.NetNSID)
		if err != nil {
			return err
		}
		err = d.detachKey(ctx, c, key)
		done()
		if err != nil {
			return err
		}
	}
	return nil
}

// detachKey takes the endpoints with a key away from c. A container that was attached with a key, which its first
// endpoint has, goes with its last one: networks that it was connected to since have no key, and nobody would take it
// from them. A container that ends by itself meanwhile is no error: a runtime asks when its process has ended, and the
// daemon sees that end, too.
func (d *Daemon) detachKey(ctx context.Context, c *network.Container, key string) error {
	err := d.detachEndpoints(ctx, c, key)
	if _, gone := d.model.Container(c.ID); gone != nil {
		return nil
	}
	return err
}

func (d *Daemon) detachEndpoints(ctx context.Context, c *network.Container, key string) error {
	others := slices.ContainsFunc(c.Endpoints, func(e *network.Endpoint) bool { return e.Key != "" && e.Key != key })
	if !others && len(c.Endpoints) > 0 && c.Endpoints[0].Key == key {
		return d.RemoveContainer(ctx, c.ID, true)
	}
	for _, e := range c.Endpoints {
		if e.Key != key {
			continue
		}
		if err := d.Disconnect(ctx, e.NetworkID, c.ID, true); err != nil {
			return err
		}
	}
	return nil
}
