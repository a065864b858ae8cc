package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
)

// Containers returns all containers, the newest first.
func (m *Model) Containers() []*Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Container, 0, len(m.containers))
	for _, c := range m.containers {
		list = append(list, m.whole(c))
	}
	slices.SortFunc(list,
		func(a, b *Container) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Find returns the containers that a term is for, by id. It looks at no others.
func (m *Model) Find(t Term) []*Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []*Container
	m.postings.each(t, func(id string) bool {
		list = append(list, m.whole(m.containers[id]))
		return true
	})
	return list
}

// FirstName is the name of one of the containers that a term is for; "": there is none. It copies nothing.
func (m *Model) FirstName(t Term) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if c := m.containers[m.postings.first(t)]; c != nil {
		return c.Name
	}
	return ""
}

// Container finds one by full id, name or unique id prefix, in this order.
func (m *Model) Container(ref string) (*Container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, err := m.findContainer(ref)
	if err != nil {
		return nil, err
	}
	return m.whole(c), nil
}

func (m *Model) findContainer(ref string) (*Container, error) {
	ref = strings.TrimPrefix(ref, "/")
	if c := m.containers[ref]; c != nil {
		return c, nil
	}
	if c := m.containers[m.postings.first(Term{kindName, ref})]; c != nil {
		return c, nil
	}
	found := m.postings.prefixed(kindID, ref)
	switch len(found) {
	case 0:
		return nil, errdefs.NotFound("No such container: %s", ref)
	case 1:
		return m.containers[found[0]], nil
	}
	return nil, errdefs.Invalid("multiple IDs found with provided prefix: %s", ref)
}

// save stores c, which has no ports, and more, and then makes them what others see.
func (m *Model) save(c *Container, more ...write) error {
	if err := c.withoutPorts(); err != nil {
		return err
	}
	if err := m.commit(append([]write{{bucketContainers, c.ID, c}}, more...)...); err != nil {
		return fmt.Errorf("container %s not stored: %w", c.Name, err)
	}
	return nil
}

// CreateContainer makes a container with its endpoints and addresses: all of it, or with an error nothing.
func (m *Model) CreateContainer(spec ContainerSpec) (c *Container, warnings []string, err error) {
	spec.Networks = slices.Clone(spec.Networks) // reserveAll and setMode change it
	if err := m.reserveAll(&spec); err != nil {
		return nil, nil, err
	}
	err = m.update(func() (err error) {
		c, warnings, err = m.createContainer(spec)
		return err
	})
	if err != nil {
		m.releaseAll(&spec)
	}
	return c, warnings, err
}

func (m *Model) createContainer(spec ContainerSpec) (*Container, []string, error) {
	spec.Networks = slices.Clone(spec.Networks) // setMode changes it, and this may be called again
	id := newID()
	name := strings.TrimPrefix(spec.Name, "/")
	if name == "" {
		name = drawName(func(n string) bool { _, err := m.findContainer(n); return err == nil })
	}
	if err := checkContainerName(name); err != nil {
		return nil, nil, err
	}
	if err := m.nameFree(name, ""); err != nil {
		return nil, nil, err
	}
	c := containerOf(&spec, id, name)
	warnings, err := m.setMode(c, &spec)
	if err != nil {
		return nil, nil, err
	}
	if c.Hostname == "" && !strings.HasPrefix(c.NetworkMode, "container:") && c.NetworkMode != HostName {
		c.Hostname = id[:12]
	}
	for _, want := range spec.Networks {
		if _, err := m.addEndpoint(c, want.Network, want.EndpointSpec); err != nil {
			return nil, nil, err
		}
	}
	asked := c.Ports
	c.Ports = nil
	if err := m.save(c, puts(bucketPorts, id, &ports.List{}, asked)...); err != nil {
		return nil, nil, err
	}
	return m.whole(c), warnings, nil
}

// containerOf is the record of a new container, without endpoints.
func containerOf(spec *ContainerSpec, id, name string) *Container {
	return &Container{
		ID:           id,
		Name:         name,
		Created:      time.Now().UTC(),
		Status:       Created,
		Labels:       maps.Clone(spec.Labels),
		Command:      spec.Command,
		Env:          spec.Env,
		WorkingDir:   spec.WorkingDir,
		Rootfs:       spec.Rootfs,
		User:         spec.User,
		Privileged:   spec.Privileged,
		CapAdd:       spec.CapAdd,
		CapDrop:      spec.CapDrop,
		SecurityOpt:  spec.SecurityOpt,
		TTY:          spec.TTY,
		OpenStdin:    spec.OpenStdin,
		AutoRemove:   spec.AutoRemove,
		Mounts:       slices.Clone(spec.Mounts),
		ReadOnly:     spec.ReadOnly,
		Init:         spec.Init,
		Restart:      spec.Restart,
		Health:       spec.Health,
		StopSignal:   spec.StopSignal,
		StopTimeout:  clonePointer(spec.StopTimeout),
		Resources:    spec.Resources.WithDefaults(),
		Attached:     spec.Attached,
		NetNS:        spec.NetNS,
		NetNSID:      spec.NetNSID,
		Moves:        spec.Moves,
		UserNSID:     spec.UserNSID,
		UserNS:       spec.UserNS,
		VM:           spec.VM,
		Hostname:     spec.Hostname,
		Domainname:   spec.Domainname,
		DNS:          spec.DNS,
		DNSSearch:    spec.DNSSearch,
		DNSOptions:   spec.DNSOptions,
		ExtraHosts:   spec.ExtraHosts,
		DNSAddr:      spec.DNSAddr,
		LocalAddrs:   slices.Clone(spec.LocalAddrs),
		Ports:        spec.Ports,
		Exposed:      exposed(*spec),
		PublishAll:   spec.PublishAll,
		HostLoopback: spec.HostLoopback,
		ShareAPI:     spec.ShareAPI,
		Egress:       spec.Egress,
		AllowEgress:  spec.AllowEgress,
	}
}

func (m *Model) nameFree(name, self string) (err error) {
	m.postings.each(Term{kindName, name}, func(id string) bool {
		if id != self {
			err = errdefs.Conflict(
				"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) "+
					"that container to be able to reuse that name.",
				"/"+name, id)
		}
		return err == nil
	})
	return err
}

// exposed are the ports that were exposed or published, each once.
func exposed(spec ContainerSpec) []PortProto {
	list := slices.Clone(spec.Exposed)
	for _, b := range spec.Ports {
		for p := int(b.Port); p <= int(max(b.Port, b.End)) && len(list) < 1024; p++ {
			if x := (PortProto{Port: uint16(p), Proto: b.Proto}); !slices.Contains(list, x) {
				list = append(list, x)
			}
		}
	}
	return list
}

// UpdateContainer changes a container through f, which may be called again and changes nothing else. Where f or storing
// fails nothing changes. Neither what f gets nor what is returned has ports, and f must not give it any: AddPorts,
// RemovePorts and SetBound change those.
func (m *Model) UpdateContainer(ref string, f func(*Container) error) (*Container, error) {
	return m.updateWith(ref, f, func(string) []write { return nil })
}

// UpdateBound is UpdateContainer with SetBound at once.
func (m *Model) UpdateBound(ref string, bound []PortBinding, f func(*Container) error) (*Container, error) {
	return m.updateWith(ref, f, func(id string) []write { return m.boundAs(id, bound) })
}

func (m *Model) updateWith(
	ref string, f func(*Container) error, more func(id string) []write,
) (next *Container, err error) {
	err = m.update(func() error {
		c, err := m.findContainer(ref)
		if err != nil {
			return err
		}
		next = c.clone()
		if err := f(next); err != nil {
			return err
		}
		return m.save(next, more(c.ID)...)
	})
	if err != nil {
		return nil, err
	}
	return next, nil
}

// RenameContainer gives a container another name.
func (m *Model) RenameContainer(ref, name string) (*Container, error) {
	name = strings.TrimPrefix(name, "/")
	if err := checkContainerName(name); err != nil {
		return nil, err
	}
	return m.UpdateContainer(ref, func(c *Container) error {
		if c.Name == name {
			return errdefs.Invalid("Renaming a container with the same name as its current name")
		}
		c2 := m.nameFree(name, c.ID)
		if c2 == nil {
			c.Name = name
		}
		return c2
	})
}

// EndContainer is UpdateContainer, and where f ends the container gives its addresses back in the same change. The
// endpoints stay, without addresses, and know which they had.
func (m *Model) EndContainer(ref string, f func(*Container) error) (*Container, error) {
	var had []*Endpoint
	c, err := m.UpdateContainer(ref, func(c *Container) error {
		had = nil
		if err := f(c); err != nil || c.Status != Exited {
			return err
		}
		had = c.clone().Endpoints
		for _, e := range c.Endpoints {
			if e.IPv4.IsValid() || e.IPv6.IsValid() {
				e.LastIPv4, e.LastIPv6 = e.IPv4.Addr(), e.IPv6.Addr()
			}
			e.IPv4, e.IPv6, e.MAC, e.Gateway4, e.Gateway6 = netip.Prefix{}, netip.Prefix{}, MAC{}, netip.Addr{},
				netip.Addr{}
		}
		return nil
	})
	if err == nil {
		m.releaseEndpoints(had...)
	}
	return c, err
}

// RemoveContainer forgets a container and its endpoints.
func (m *Model) RemoveContainer(ref string) error {
	var gone *Container
	err := m.update(func() (err error) {
		gone, err = m.removeContainer(ref)
		return err
	})
	if err == nil {
		m.releaseEndpoints(gone.Endpoints...)
	}
	return err
}

func (m *Model) removeContainer(ref string) (*Container, error) {
	c, err := m.findContainer(ref)
	if err != nil {
		return nil, err
	}
	if err := m.commit(append(m.removal(c.ID), write{bucketContainers, c.ID, nil})...); err != nil {
		return nil, fmt.Errorf("container %s not removed from the store: %w", c.Name, err)
	}
	return c, nil
}
