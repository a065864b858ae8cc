package network

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
)

// A container may have thousands of published ports, of which one comes or goes at a time. So they are not in its
// record: each binding is one of its own, in the store and in memory.

// published are the ports of one container.
type published struct {
	asked ports.List // as asked for
	bound ports.List // as they were bound last
}

// list is the one whose bindings are in a bucket.
func (p *published) list(b Bucket) *ports.List {
	if b == bucketBound {
		return &p.bound
	}
	return &p.asked
}

// portID is the id of a binding's record: those of one container are together, in the order of their keys.
func portID(container string, key uint64) string { return fmt.Sprintf("%s/%016x", container, key) }

// portRecord is a binding as it was read.
type portRecord struct {
	container string
	key       uint64
	PortBinding
}

func (p *portRecord) check(id string) error {
	container, text, _ := strings.Cut(id, "/")
	key, err := strconv.ParseUint(text, 16, 64)
	if err != nil || portID(container, key) != id || !idForm().MatchString(container) {
		return errors.New("it is of no container")
	}
	p.container, p.key = container, key
	return nil
}

// addLoaded is for load. A binding of a container that is not there is left out.
func (r *records) addLoaded(b Bucket) func(*portRecord) {
	return func(p *portRecord) {
		if r.containers[p.container] != nil {
			r.setPort(b, p.container, p.key, &p.PortBinding)
		}
	}
}

// setPort adds a binding to a container's, or with nil removes it.
func (r *records) setPort(b Bucket, container string, key uint64, p *PortBinding) {
	own := r.ports[container]
	if own == nil {
		own = &published{}
		r.ports[container] = own
	}
	if p == nil {
		own.list(b).Delete(key)
	} else {
		own.list(b).Put(key, *p)
	}
	if own.asked.Len()+own.bound.Len() == 0 {
		delete(r.ports, container)
	}
}

// portsOf are the ports of a container, and none where it has none.
func (r *records) portsOf(container string) *published {
	if p := r.ports[container]; p != nil {
		return p
	}
	return &published{}
}

// whole returns a copy of c with its ports.
func (r *records) whole(c *Container) *Container {
	o := c.clone()
	if p := r.ports[c.ID]; p != nil {
		o.Ports, o.Bound = p.asked.All(), p.bound.All()
	}
	return o
}

// ContainerWithoutPorts is Container with Ports and Bound left out, which takes a while where there are thousands.
func (m *Model) ContainerWithoutPorts(ref string) (*Container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, err := m.findContainer(ref)
	if err != nil {
		return nil, err
	}
	return c.clone(), nil
}

// PublishesPorts says whether ports of a container were asked for.
func (m *Model) PublishesPorts(id string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.portsOf(id).asked.Len() > 0
}

// puts are the writes that add bindings to a list of a container's.
func puts(b Bucket, container string, list *ports.List, add []PortBinding) (w []write) {
	key := list.Next()
	for i := range add {
		w = append(w, write{b, portID(container, key), &add[i]})
		key++
	}
	return w
}

// AddPorts adds ports of a container that were asked for, and what they are bound as.
func (m *Model) AddPorts(ref string, asked, bound []PortBinding) error {
	return m.update(func() error {
		c, err := m.findContainer(ref)
		if err != nil {
			return err
		}
		own := m.portsOf(c.ID)
		return m.savePorts(c, append(puts(bucketPorts, c.ID, &own.asked, asked),
			puts(bucketBound, c.ID, &own.bound, bound)...))
	})
}

// RemovePorts removes ports of a container, each of drop by the container's port, and by the host's port and its
// address where it has them. bound returns what is bound of a binding.
func (m *Model) RemovePorts(ref string, drop []PortBinding, bound func(PortBinding) []PortBinding) error {
	return m.update(func() error {
		c, err := m.findContainer(ref)
		if err != nil {
			return err
		}
		own := m.portsOf(c.ID)
		touched := map[uint64][]PortBinding{} // what is dropped of a binding
		gone := map[uint64]bool{}
		for _, p := range drop {
			for _, key := range own.asked.Touched(p) {
				touched[key] = append(touched[key], p)
			}
			keys, _ := own.bound.Named(p)
			for _, key := range keys {
				gone[key] = true
			}
		}
		var w []write
		var left []PortBinding
		for _, key := range slices.Sorted(maps.Keys(touched)) {
			b := own.asked.Get(key)
			rest := b.Without(touched[key], bound)
			if len(rest) == 1 && rest[0] == b {
				continue
			}
			w = append(w, write{bucketPorts, portID(c.ID, key), nil})
			left = append(left, rest...)
		}
		w = append(w, puts(bucketPorts, c.ID, &own.asked, left)...)
		for _, key := range slices.Sorted(maps.Keys(gone)) {
			w = append(w, write{bucketBound, portID(c.ID, key), nil})
		}
		return m.savePorts(c, w)
	})
}

// SetBound says what the ports of a container are bound as now.
func (m *Model) SetBound(ref string, bound []PortBinding) error {
	return m.update(func() error {
		c, err := m.findContainer(ref)
		if err != nil {
			return err
		}
		return m.savePorts(c, m.boundAs(c.ID, bound))
	})
}

// boundAs are the writes after which a container's ports are bound as said: none for those that are already.
func (m *Model) boundAs(container string, bound []PortBinding) (w []write) {
	have := &m.portsOf(container).bound
	missing := map[PortBinding]int{}
	for _, b := range bound {
		missing[b]++
	}
	for _, key := range have.Keys() {
		if b := have.Get(key); missing[b] > 0 {
			missing[b]--
		} else {
			w = append(w, write{bucketBound, portID(container, key), nil})
		}
	}
	var add []PortBinding
	for _, b := range bound {
		if missing[b] > 0 {
			missing[b]--
			add = append(add, b)
		}
	}
	return append(w, puts(bucketBound, container, have, add)...)
}

func (m *Model) savePorts(c *Container, w []write) error {
	if err := m.commit(w...); err != nil {
		return fmt.Errorf("ports of container %s not stored: %w", c.Name, err)
	}
	return nil
}

// removal are the writes that remove the ports of a container.
func (m *Model) removal(container string) (w []write) {
	own := m.portsOf(container)
	for _, b := range []Bucket{bucketPorts, bucketBound} {
		for _, key := range own.list(b).Keys() {
			w = append(w, write{b, portID(container, key), nil})
		}
	}
	return w
}

// withoutPorts refuses a change of a container's ports in a place where they are not known.
func (c *Container) withoutPorts() error {
	if c.Ports != nil || c.Bound != nil {
		return errdefs.Internal("ports of container %s are changed where they are not known", c.Name)
	}
	return nil
}
