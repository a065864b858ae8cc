package network

import (
	"context"
	"net/netip"
	"strings"
	"time"
)

// Allocator reserves addresses of endpoints where others hand out addresses of the same pools too, as on a network that
// spans hosts. A network whose driver has none gets the lowest address that is free in its Model.
//
// Its methods may be called at the same time, and are called without a lock of the model's.
type Allocator interface {
	// Reserve reserves an address of p, which is one of n's pools, for owner: want, or where want is not valid one of
	// p.Range or p.Subnet. It never returns one that p.Reserved says is not for containers. owner is the id of the
	// endpoint that is about to be made; the same call twice returns the same address. An error has a kind, and a text
	// for users.
	Reserve(ctx context.Context, n *Network, p Pool, want netip.Addr, owner string) (netip.Addr, error)
	// Release gives an address back. It does not wait, and does not fail: where that takes a while the allocator does
	// it later. An address that owner does not have is none of its business.
	Release(n *Network, a netip.Addr, owner string)
}

// reserveTimeout bounds how long Allocators may take for one endpoint.
const reserveTimeout = 10 * time.Second

// reservation is what an Allocator has reserved for one endpoint that is about to be made.
type reservation struct {
	network   *Network
	endpoint  string // its id
	addresses []netip.Addr
}

// in is the reserved address of a pool; invalid where there is none.
func (r *reservation) in(p *Pool) netip.Addr {
	if r != nil {
		for _, a := range r.addresses {
			if p.Subnet.Contains(a) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// allocator is that of a network, nil where the model chooses addresses itself.
func (m *Model) allocator(n *Network) Allocator { return m.opts.Allocators[n.Driver] }

// reserve reserves the addresses of an endpoint that is about to be made, where the network's driver has an Allocator,
// and notes them in spec. What is wrong with spec otherwise is found when the endpoint is made. The caller holds no
// lock.
func (m *Model) reserve(networkRef string, spec *EndpointSpec) error {
	n, err := m.Network(networkRef)
	if err != nil || m.allocator(n) == nil || !n.HasInterfaces() {
		return nil // a network that is not there is refused when the endpoint is made
	}
	a := m.allocator(n)
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	r := &reservation{network: n, endpoint: newID()}
	spec.reserved = r
	var v4, v6 bool
	for i := range n.Pools {
		p, want, have := &n.Pools[i], spec.IPv4, &v4
		if p.Subnet.Addr().Is6() {
			want, have = spec.IPv6, &v6
		}
		if *have || want.IsValid() && (!p.Subnet.Contains(want) || p.Reserved(want)) {
			continue
		}
		addr, err := a.Reserve(ctx, n, *p, want, r.endpoint)
		if err != nil {
			m.release(r)
			return err
		}
		r.addresses, *have = append(r.addresses, addr), true
	}
	return nil
}

// reserveAll does the same for all endpoints of a new container; on an error nothing stays reserved.
func (m *Model) reserveAll(spec *ContainerSpec) error {
	mode := networkMode(spec)
	if strings.HasPrefix(mode, "container:") {
		return nil
	}
	if len(spec.Networks) == 0 {
		spec.Networks = []NamedEndpointSpec{{Network: mode}}
	}
	for i := range spec.Networks {
		if err := m.reserve(spec.Networks[i].Network, &spec.Networks[i].EndpointSpec); err != nil {
			m.releaseAll(spec)
			return err
		}
	}
	return nil
}

// release gives a reservation back; nil is none.
func (m *Model) release(r *reservation) {
	if r == nil {
		return
	}
	for _, a := range r.addresses {
		m.allocator(r.network).Release(r.network, a, r.endpoint)
	}
}

func (m *Model) releaseAll(spec *ContainerSpec) {
	for i := range spec.Networks {
		m.release(spec.Networks[i].reserved)
	}
}

// releaseEndpoints gives the addresses of endpoints back that are gone. The caller holds no lock.
func (m *Model) releaseEndpoints(endpoints ...*Endpoint) {
	for _, e := range endpoints {
		n, err := m.Network(e.NetworkID)
		if err != nil {
			continue // gone with all its addresses
		}
		a := m.allocator(n)
		for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
			if a != nil && p.IsValid() {
				a.Release(n, p.Addr(), e.ID)
			}
		}
	}
}
