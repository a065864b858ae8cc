package network

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
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

// Leaser is an Allocator that does not serve all networks of its driver, and where an address is reserved for a
// station: a DHCP server's client.
type Leaser interface {
	Allocator
	// Leases says whether it reserves the addresses of a family of all endpoints of a network; else of those that want
	// it.
	Leases(n *Network, ipv6 bool) bool
	// Taken says which station outside has an address that the model would choose, or that was asked for; "": none. It
	// may wait for as long as ctx lets it.
	Taken(ctx context.Context, n *Network, c Claim) (string, error)
	// Lease is Reserve for a station with a MAC address and a name.
	Lease(ctx context.Context, n *Network, p Pool, c Claim) (netip.Addr, error)
}

// Claim is what a Leaser is asked for.
type Claim struct {
	Owner    string     // the id of the endpoint that is about to be made
	Want     netip.Addr // invalid: any
	MAC      MAC
	Hostname string
	VLAN     uint16 // of the endpoint; 0: its network's
}

// reserveTimeout bounds how long Allocators may take for one endpoint.
const reserveTimeout = 10 * time.Second

// reservation is what an Allocator has reserved for one endpoint that is about to be made.
type reservation struct {
	network   *Network
	endpoint  string // its id
	addresses []netip.Addr
	chosen    []netip.Addr // not reserved, but free when they were looked at
	mac       MAC          // that the addresses are for; zero: for any
	// leased are the families whose addresses a Leaser has reserved, IPv4 and IPv6; others are the model's to choose.
	leased [2]bool
}

// leases says whether the address of a family is a Leaser's.
func (r *reservation) leases(ipv6 bool) bool { return r != nil && r.leased[family(ipv6)] }

// reserves says whether the address of a family is reserved at all: others' are chosen.
func (r *reservation) reserves(ipv6 bool) bool {
	return r != nil && (r.leases(ipv6) || r.leased == [2]bool{} && len(r.addresses) > 0)
}

// choice is the chosen address of a pool, if it is still free.
func (r *reservation) choice(p *Pool, used taken) netip.Addr {
	if r != nil {
		for _, a := range r.chosen {
			if p.Subnet.Contains(a) && !used.has(a) {
				return a
			}
		}
	}
	return netip.Addr{}
}

func family(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
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

// allocator is that of a network, nil where the model chooses addresses itself. lease: an endpoint wants a lease.
func (m *Model) allocator(n *Network, lease bool) Allocator {
	a := m.opts.Allocators[n.Driver]
	if l, is := a.(Leaser); is && !lease && !l.Leases(n, false) && !l.Leases(n, true) {
		return nil
	}
	return a
}

// macOf is the MAC address of an endpoint that has to have one before it has addresses: locally administered, and of
// the random bytes of its id.
func (r *reservation) macOf(n *Network, want MAC) MAC {
	if one := n.Settings().OneMAC; one != (MAC{}) {
		return one
	}
	if want != (MAC{}) {
		return want
	}
	m := MAC{0x02}
	_, _ = hex.Decode(m[1:], []byte(r.endpoint[:10]))
	return m
}

// reserve reserves the addresses of an endpoint that is about to be made, where the network's driver has an Allocator,
// and notes them in spec. What is wrong with spec otherwise is found when the endpoint is made. The caller holds no
// lock.
func (m *Model) reserve(networkRef string, spec *EndpointSpec) error {
	return m.reserveFor(networkRef, spec, newID())
}

// reserveFor does the same for an endpoint whose id is known.
func (m *Model) reserveFor(networkRef string, spec *EndpointSpec, endpoint string) error {
	n, err := m.Network(networkRef)
	if err == nil && spec.DHCP {
		if _, is := m.opts.Allocators[n.Driver].(Leaser); !is {
			return errdefs.Invalid("network %s has no DHCP server: its addresses are usernet's to give", n.Name)
		}
	}
	if err != nil || m.opts.Allocators[n.Driver] == nil || !n.HasInterfaces() {
		return nil // a network that is not there is refused when the endpoint is made
	}
	a := m.opts.Allocators[n.Driver]
	l, isLeaser := a.(Leaser)
	ctx, cancel := context.WithTimeout(context.Background(), reserveTimeout)
	defer cancel()
	r := &reservation{network: n, endpoint: endpoint}
	var v4, v6 bool
	for i := range n.Pools {
		p, want, have := &n.Pools[i], spec.IPv4, &v4
		ipv6 := p.Subnet.Addr().Is6()
		if ipv6 {
			want, have = spec.IPv6, &v6
		}
		if *have || want.IsValid() && (!p.Subnet.Contains(want) || p.Reserved(want)) {
			continue
		}
		var addr netip.Addr
		if isLeaser && !l.Leases(n, ipv6) && (ipv6 || !spec.DHCP) {
			if addr, err = m.untaken(ctx, l, r, p, want, spec); addr.IsValid() {
				r.chosen, *have = append(r.chosen, addr), true
			}
		} else {
			r.leased[family(ipv6)] = isLeaser
			if addr, err = r.reserve(ctx, a, *p, want, spec); err == nil {
				r.addresses, *have = append(r.addresses, addr), true
			}
		}
		if err != nil {
			m.release(r)
			return err
		}
	}
	spec.reserved = r
	return nil
}

// maxTaken is how many addresses in a row may be those of stations that this host knows nothing of.
const maxTaken = 8

// untaken chooses an address that no station outside has; invalid: the pool has none, which is said later. An address
// that was asked for is refused where one has it.
func (m *Model) untaken(
	ctx context.Context, l Leaser, r *reservation, p *Pool, want netip.Addr, spec *EndpointSpec,
) (netip.Addr, error) {
	if spec.SelfAddressed && p.Subnet.Addr().Is6() {
		return netip.Addr{}, nil
	}
	others := map[netip.Addr]bool{}
	for range maxTaken {
		a := want
		if ok := a.IsValid(); !ok {
			m.mu.RLock()
			used := m.taken(r.network.ID)
			used.more = others
			a, ok = used.lowestFree(p)
			m.mu.RUnlock()
			if !ok {
				return a, nil
			}
		}
		station, err := l.Taken(ctx, r.network, Claim{Owner: r.endpoint, Want: a, MAC: r.macOf(r.network, spec.MAC),
			VLAN: spec.VLAN})
		switch {
		case err != nil || station == "":
			return a, err
		case want.IsValid():
			return netip.Addr{}, errdefs.Forbidden("network %s: address %s is that of another station, %s: give another one",
				r.network.Name, a, station)
		}
		others[a] = true
	}
	return netip.Addr{}, errdefs.Unavailable("network %s: other stations have the %d lowest addresses that are free "+
		"here: give the network an --ip-range that nobody else uses", r.network.Name, maxTaken)
}

// reserve reserves one address.
func (r *reservation) reserve(
	ctx context.Context, a Allocator, p Pool, want netip.Addr, spec *EndpointSpec,
) (netip.Addr, error) {
	l, is := a.(Leaser)
	if !is {
		return a.Reserve(ctx, r.network, p, want, r.endpoint)
	}
	r.mac = r.macOf(r.network, spec.MAC)
	return l.Lease(ctx, r.network, p, Claim{r.endpoint, want, r.mac, spec.hostname, spec.VLAN})
}

// NameOutside is what the container is called where others ask for its name: the hostname that somebody gave it, else
// its name.
func (c *Container) NameOutside() string { return nameOutside(c.Hostname, c.Name, c.ID) }

func nameOutside(hostname, name, id string) string {
	if hostname != "" && !strings.HasPrefix(id, hostname) { // not one that was drawn
		return hostname
	}
	return strings.TrimPrefix(name, "/")
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
		spec.Networks[i].hostname = nameOutside(spec.Hostname, spec.Name, "")
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
		m.allocator(r.network, r.leased[0] || r.leased[1]).Release(r.network, a, r.endpoint)
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
		a := m.allocator(n, e.DHCP)
		for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
			if a != nil && p.IsValid() {
				a.Release(n, p.Addr(), e.ID)
			}
		}
	}
}
