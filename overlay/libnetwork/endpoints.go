package libnetwork

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/overlay"
)

// SetContainer has all hosts know the endpoints of a container on networks between Docker's hosts, in the place of what
// they knew. None: it has ended, or is on no such network.
func (m *Member) SetContainer(id string, endpoints []overlay.Endpoint) {
	m.mu.Lock()
	if len(endpoints) == 0 {
		delete(m.mu.own, id)
	} else {
		m.mu.own[id] = slices.Clone(endpoints)
	}
	m.mu.Unlock()
	m.wake()
}

// own are the endpoints of this host on a network, by id.
func (m *Member) own(network string) map[string]overlay.Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]overlay.Endpoint{}
	for _, list := range m.mu.own {
		for _, e := range list {
			if e.Network == network && len(e.Addrs) > 0 && e.Addrs[0].Is4() {
				found[e.EndpointID] = e
			}
		}
	}
	return found
}

// reconcile makes the store's records of this host's endpoints equal to its containers', and says whether it has
// written anything.
func (m *Member) reconcile(ctx context.Context, v *view) (wrote bool, err error) {
	if err := m.countRest(ctx, v); err != nil {
		return false, fmt.Errorf("the count of endpoints: %w", err)
	}
	for id, k := range v.networks {
		own := m.own(id)
		for eid, e := range own {
			did, err := m.put(ctx, k, e)
			if err != nil {
				return wrote, fmt.Errorf("endpoint %.12s: %w", eid, err)
			}
			wrote = wrote || did
		}
		for eid, e := range k.endpoints {
			if _, stays := own[eid]; stays || e.Owner != m.leases.host {
				continue
			}
			if err := m.drop(ctx, id, e); err != nil {
				return wrote, fmt.Errorf("endpoint %.12s: %w", eid, err)
			}
			wrote = true
		}
	}
	return wrote, nil
}

// put writes the record of an endpoint, where the store does not have it. The daemons read the network's endpoints anew
// when its count is written.
func (m *Member) put(ctx context.Context, k *known, e overlay.Endpoint) (wrote bool, err error) {
	value, err := encodeEndpoint(e, k.network.Pools[0].Subnet, m.leases.host, m.cfg.Addr)
	if err != nil {
		return false, err
	}
	if there := k.endpoints[e.EndpointID]; there != nil && bytes.Equal(there.Text, value) {
		return false, nil
	}
	err = m.change(ctx, endpointKey(k.network.ID, e.EndpointID), func(old []byte) ([]byte, error) {
		if old == nil {
			m.uncounted[e.EndpointID] = uncounted{k.network.ID, 1}
		}
		return value, nil
	})
	if err != nil {
		return false, err
	}
	return true, m.countOne(ctx, k.network.ID, e.EndpointID)
}

// errNothing ends a change that has nothing to do.
var errNothing = errors.New("nothing to do")

// drop deletes the record of an endpoint of this host that is gone.
func (m *Member) drop(ctx context.Context, id string, e *endpoint) error {
	m.uncounted[e.EndpointID] = uncounted{id, -1}
	if err := m.remove(ctx, endpointKey(id, e.EndpointID)); err != nil {
		return err
	}
	return m.countOne(ctx, id, e.EndpointID)
}

// uncounted is an endpoint whose record was written (+1) or deleted (-1) before its network's count was. Where the
// store's answer was lost, it may not have been.
type uncounted struct {
	network string
	delta   int
}

// countOne counts an endpoint whose record was written or deleted. One whose record was only written anew does not
// change the count, which is written all the same: the daemons read the network's endpoints again then.
func (m *Member) countOne(ctx context.Context, network, id string) error {
	if err := m.count(ctx, network, m.uncounted[id].delta); err != nil {
		return err
	}
	delete(m.uncounted, id)
	return nil
}

// countRest counts what earlier rounds did not come to count. The records say which of their writes have happened.
func (m *Member) countRest(ctx context.Context, v *view) error {
	for id, u := range m.uncounted {
		k := v.networks[u.network]
		if k == nil || (k.endpoints[id] != nil) != (u.delta > 0) {
			delete(m.uncounted, id)
			continue
		}
		if err := m.countOne(ctx, u.network, id); err != nil {
			return err
		}
	}
	return nil
}

// countRecord is how many endpoints a network has.
type countRecord struct{ Count int64 }

// count adds to how many endpoints a network has; 0 only has the record written.
func (m *Member) count(ctx context.Context, id string, delta int) error {
	err := m.change(ctx, countKey(id), func(old []byte) ([]byte, error) {
		var c countRecord
		if old == nil {
			return nil, errNothing // the network is being removed
		}
		if err := json.Unmarshal(old, &c); err != nil {
			return nil, fmt.Errorf("the count of endpoints: %w: %w", errRecord, err)
		}
		c.Count = max(c.Count+int64(delta), 0)
		return json.Marshal(c)
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// tellOthers has the daemons know where this host's endpoints are, and which have left. They ask for others.
func (m *Member) tellOthers(v *view) {
	now := map[string]told{}
	for id, k := range v.networks {
		for eid, e := range m.own(id) {
			now[eid] = told{e, k.network.Pools[0].Subnet.Bits()}
		}
	}
	m.mu.Lock()
	before := m.mu.told
	m.mu.told = now
	m.mu.Unlock()
	for eid, t := range before {
		if _, stays := now[eid]; !stays {
			m.gossip.tell("leave", t)
		}
	}
	for eid, t := range now {
		if _, was := before[eid]; !was {
			m.gossip.tell("join", t)
		}
	}
}

// lookUp answers the question of a daemon that has a frame for an address: the endpoint, if it is this host's.
func (m *Member) lookUp(network string, a netip.Addr) (told, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.mu.told {
		if t.endpoint.Network == network && t.endpoint.Addrs[0] == a {
			return t, true
		}
	}
	return told{}, false
}
