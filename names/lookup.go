package names

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/usernet/usernet/dns"
)

// Client says how the questions of a container are answered; ok is false for one that is not in the table.
func (t *Table) Client(id string) (c dns.Client, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m := t.containers[id]
	if m == nil {
		return dns.Client{ID: id}, false
	}
	return m.DNS, true
}

// LookupName returns the addresses of a name as a container sees it. The last ones are of hosts that are not heard of.
func (t *Table) LookupName(container, name string) (addrs []netip.Addr, last int, found bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m := t.containers[container]
	if m == nil {
		return nil, 0, false
	}
	addrs, found = slices.Clone(m.Hosts[name]), m.Hosts[name] != nil
	list := m.linked(name)
	if !found && len(list) == 0 {
		list = m.sees(name)
	}
	for _, o := range livingFirst(list) {
		addrs, found = append(addrs, o.Addrs...), true
		if o.Down {
			last += len(o.Addrs)
		}
	}
	return addrs, last, found
}

// linked returns the endpoints that a container's links of a name lead to.
func (m *member) linked(name string) []*seat {
	var list []*seat
	for _, one := range m.seats {
		if !one.segment.Resolves {
			continue
		}
		for _, target := range one.links[name] {
			list = append(list, one.segment.names[target]...)
		}
	}
	return list
}

// sees returns the endpoints with a name on the networks that a container is on.
func (m *member) sees(name string) []*seat {
	var list []*seat
	for _, one := range m.seats {
		if one.segment.Resolves {
			list = append(list, one.segment.names[name]...)
		}
	}
	return list
}

// LookupAddr returns the name behind an address, as a container sees it, and whether the address is in a known network.
func (t *Table) LookupAddr(container string, addr netip.Addr) (name string, ours bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if m := t.containers[container]; m != nil {
		for _, one := range m.seats {
			if o := one.segment.addrs[addr]; o != nil && one.segment.Resolves {
				return o.full(), true
			}
		}
	}
	for _, s := range t.networks {
		for _, subnet := range s.Subnets {
			if subnet.Contains(addr) {
				return "", true
			}
		}
	}
	return "", false
}

// LookupService returns where the containers of a name expose a port, which service is the number of.
func (t *Table) LookupService(container, service, proto, name string) (list []dns.Service, found bool) {
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	m := t.containers[container]
	if m == nil {
		return nil, false
	}
	for _, o := range m.sees(name) {
		if slices.Contains(o.Services, Service{Port: uint16(port), Proto: proto}) {
			list = append(list, dns.Service{Target: o.full(), Port: uint16(port)})
		}
	}
	return list, len(list) > 0
}

// livingFirst puts the endpoints of hosts that are not heard of behind the others.
func livingFirst(list []*seat) []*seat {
	if !slices.ContainsFunc(list, func(o *seat) bool { return o.Down }) {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *seat) int {
		switch {
		case a.Down == b.Down:
			return 0
		case a.Down:
			return 1
		}
		return -1
	})
	return list
}

// OfNetwork returns the ids of the containers on a network.
func (t *Table) OfNetwork(id string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := set{}
	if s := t.networks[id]; s != nil {
		for _, seats := range s.names {
			for _, one := range seats {
				all[one.container] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
