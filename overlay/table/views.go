package table

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/overlay"
)

// HostView is a host as the table knows it.
type HostView struct {
	overlay.Host
	Alive bool // the backend hears of it
	// Down is since when the backend does not hear of it; zero: it does, or nothing is known, as the backend was not
	// reached yet.
	Down time.Time
}

// EndpointView is an endpoint with what is known of its host.
type EndpointView struct {
	overlay.Endpoint
	Down bool // the backend does not hear of its host
}

// Hosts are all hosts that have a record, this one included, by name and id.
func (t *Table) Hosts() []HostView {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []HostView
	for _, e := range t.mu.rows {
		if h, is := e.record.(overlay.Host); is {
			_, alive := t.mu.alive[h.ID]
			list = append(list, HostView{Host: h, Alive: alive, Down: t.mu.down[h.ID]})
		}
	}
	slices.SortFunc(
		list,
		func(a, b HostView) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) },
	)
	return list
}

// Networks are all networks, by name and id.
func (t *Table) Networks() []overlay.Network {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []overlay.Network
	for _, e := range t.mu.rows {
		if n, is := e.record.(overlay.Network); is {
			list = append(list, n)
		}
	}
	slices.SortFunc(
		list,
		func(a, b overlay.Network) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) },
	)
	return list
}

// Network is one of them.
func (t *Table) Network(id string) (overlay.Network, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.mu.rows[overlay.NetworkKey(id)]
	if e == nil {
		return overlay.Network{}, false
	}
	return e.record.(overlay.Network), true
}

// Endpoints are those of a network on all hosts, each once, in order of their first address.
func (t *Table) Endpoints(network string) []EndpointView {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []EndpointView
	for e := range t.mu.byNet[network] {
		r, first := e.endpoint()
		if !first || r.Host != e.Owner { // a host speaks for itself only
			continue
		}
		_, down := t.mu.down[e.Owner]
		list = append(list, EndpointView{Endpoint: r, Down: down})
	}
	slices.SortFunc(list, func(a, b EndpointView) int { return a.Addrs[0].Compare(b.Addrs[0]) })
	return list
}

// EndpointAt is the endpoint with an address on a network.
func (t *Table) EndpointAt(network string, a netip.Addr) (overlay.Endpoint, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.mu.rows[overlay.EndpointKey(network, a)]
	if e == nil {
		return overlay.Endpoint{}, false
	}
	return e.record.(overlay.Endpoint), true
}

// OwnEndpoints are the keys of this host's endpoints.
func (t *Table) OwnEndpoints() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for key, e := range t.mu.rows {
		if e.Owner == t.cfg.Host && e.kind() == overlay.KindEndpoint {
			list = append(list, key)
		}
	}
	return list
}

// Blocks are those of a network, of all hosts, in order. Own says which are this host's.
func (t *Table) Blocks(network string) []overlay.Block {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []overlay.Block
	for _, e := range t.mu.rows {
		if b, is := e.record.(overlay.Block); is && b.Network == network && b.Host == e.Owner {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b overlay.Block) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return list
}

// RouteView is a subnet behind a host, with what is known of the host.
type RouteView struct {
	overlay.Route
	Claimed int64 // see Row
	Down    bool  // the backend does not hear of the host
}

// Routes are all of them, the one that was claimed first before the others.
func (t *Table) Routes() []RouteView {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []RouteView
	for _, e := range t.mu.rows {
		if r, is := e.record.(overlay.Route); is && r.Host == e.Owner {
			_, down := t.mu.down[e.Owner]
			list = append(list, RouteView{Route: r, Claimed: e.Claimed, Down: down})
		}
	}
	slices.SortFunc(list, func(a, b RouteView) int {
		return cmp.Or(cmp.Compare(a.Claimed, b.Claimed), cmp.Compare(a.Host, b.Host),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return list
}

// Claimed says which network has claimed a name, a subnet or a number: the keys of package overlay.
func (t *Table) Claimed(key string) (network string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.mu.rows[key]
	if e == nil {
		return "", false
	}
	n, is := e.record.(overlay.Name)
	return n.Network, is
}

// Pools are the subnets of all networks.
func (t *Table) Pools() []netip.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []netip.Prefix
	for key := range t.mu.rows {
		if !strings.HasPrefix(key, string(overlay.KindPool)) {
			continue
		}
		if k, err := overlay.ParseKey(key); err == nil && k.Kind == overlay.KindPool {
			list = append(list, k.Prefix)
		}
	}
	return list
}

// Status is how a table is.
type Status struct {
	Health
	Synced bool // the replica is equal to what the backend has
	Rows   int
	Unsent int // rows of this host that the backend does not have yet, or still has
}

// Status describes the table.
func (t *Table) Status() Status {
	h := t.cfg.Backend.Health()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.err != nil && h.Err == nil {
		h.Err = t.mu.err
	}
	return Status{
		Health: h,
		Synced: t.mu.synced,
		Rows:   len(t.mu.rows),
		Unsent: len(t.mu.dirty) + len(t.mu.gone),
	}
}
