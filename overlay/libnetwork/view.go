package libnetwork

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/table"
)

// view is what the store has, read and checked. The zero value is nothing, not yet read.
type view struct {
	whole    bool
	networks map[string]*known // by id
	hosts    []netip.Addr      // that say that they are there
}

// known is a network with its endpoints, by their ids.
type known struct {
	network   *network.Network
	endpoints map[string]*endpoint
}

// read reads what there is. What does not pass the checks is left out, and logged once.
func (m *Member) read(ctx context.Context) (*view, error) {
	list := func(dir string) ([]Pair, error) {
		ctx, cancel := within(ctx, callTimeout)
		defer cancel()
		return m.store.List(ctx, dir)
	}
	nodes, err := list(keyNodes)
	if err != nil {
		return nil, err
	}
	networks, err := list(keyNetworks)
	if err != nil {
		return nil, err
	}
	drivers, err := list(keyOverlay)
	if err != nil {
		return nil, err
	}
	v := &view{whole: true, networks: map[string]*known{}, hosts: hostsIn(nodes)}
	stored := map[string][]byte{}
	for _, p := range drivers {
		stored[lastWord(p.Key)] = p.Value
	}
	for _, p := range networks {
		id := lastWord(p.Key)
		n, err := decodeNetwork(p.Value, stored[id])
		switch {
		case errors.Is(err, errNotOurs):
		case err != nil:
			m.leftOut(p.Key, err)
		case n.ID == id:
			v.networks[id] = &known{network: n, endpoints: map[string]*endpoint{}}
		}
	}
	if len(v.networks) == 0 {
		return v, nil
	}
	endpoints, err := list(keyEndpoints)
	if err != nil {
		return nil, err
	}
	m.addEndpoints(v, endpoints)
	_, err = list(keyCounts) // in ZooKeeper, they are watched then
	return v, err
}

// addEndpoints adds the endpoints of networks that are known.
func (m *Member) addEndpoints(v *view, pairs []Pair) {
	for _, p := range pairs {
		words := strings.Split(p.Key, "/")
		if len(words) < 2 {
			continue
		}
		k := v.networks[words[len(words)-2]]
		if k == nil {
			continue
		}
		e, err := decodeEndpoint(p, k.network)
		if err != nil {
			m.leftOut(p.Key, err)
			continue
		}
		if e.EndpointID == lastWord(p.Key) {
			k.endpoints[e.EndpointID] = e
		}
	}
}

// leftOut logs a record that does not count, once.
func (m *Member) leftOut(key string, err error) {
	m.mu.Lock()
	again := m.mu.leftOut[key] == err.Error()
	if m.mu.leftOut == nil || len(m.mu.leftOut) > maxLeftOut {
		m.mu.leftOut = map[string]string{}
	}
	m.mu.leftOut[key] = err.Error()
	m.mu.Unlock()
	if again {
		return
	}
	m.log.Debug("a record of Docker's networks does not count", "key", key, "error", err)
}

func lastWord(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// hostsIn are the addresses that hosts have written of themselves.
func hostsIn(nodes []Pair) []netip.Addr {
	var list []netip.Addr
	for _, p := range nodes {
		at, err := netip.ParseAddrPort(string(p.Value))
		if err == nil && canBeHost(at.Addr()) && !slices.Contains(list, at.Addr().Unmap()) && len(list) < maxHosts {
			list = append(list, at.Addr().Unmap())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// maxLeftOut bounds the records of which is remembered that they were logged.
const maxLeftOut = 4096

// maxHosts bounds the hosts that are believed to be there.
const maxHosts = 1024

// hostOf is how package fabric knows the host at an address.
func hostOf(a netip.Addr) overlay.HostID {
	sum := sha256.Sum256([]byte("docker overlay host " + a.String()))
	return overlay.HostID(hex.EncodeToString(sum[:16]))
}

// peers are all hosts: those that are there, and those of endpoints.
func (v *view) peers() []fabric.Peer {
	all := map[netip.Addr]bool{}
	for _, a := range v.hosts {
		all[a] = true
	}
	for _, k := range v.networks {
		for _, e := range k.endpoints {
			if len(all) < maxHosts {
				all[e.At] = true
			}
		}
	}
	var list []fabric.Peer
	for _, a := range slices.SortedFunc(maps.Keys(all), netip.Addr.Compare) {
		list = append(list, fabric.Peer{Host: hostOf(a), Addrs: []netip.AddrPort{netip.AddrPortFrom(a, vxlanPort)}})
	}
	return list
}

// sorted are a network's endpoints in order of their addresses.
func (k *known) sorted() []*endpoint {
	return slices.SortedFunc(maps.Values(k.endpoints), func(a, b *endpoint) int {
		return a.Addrs[0].Compare(b.Addrs[0])
	})
}

// since is what is different from an older view.
func (v *view) since(old *view) table.Changes {
	c := table.Changes{Networks: map[string]bool{}, Endpoints: map[string]bool{}, Synced: v.whole && !old.whole}
	for id := range old.networks {
		if v.networks[id] == nil {
			c.Networks[id] = true
		}
	}
	for id, k := range v.networks {
		before := old.networks[id]
		if before == nil || !reflect.DeepEqual(before.network, k.network) {
			c.Networks[id] = true
		}
		if before == nil || !reflect.DeepEqual(before.endpoints, k.endpoints) {
			c.Endpoints[id] = true
		}
	}
	return c
}

// Networks are all networks between Docker's hosts, by id.
func (m *Member) Networks() []*network.Network {
	v := m.known()
	var list []*network.Network
	for _, id := range slices.Sorted(maps.Keys(v.networks)) {
		n := *v.networks[id].network
		n.Options, n.Labels = maps.Clone(n.Options), maps.Clone(n.Labels)
		n.Pools = slices.Clone(n.Pools)
		list = append(list, &n)
	}
	return list
}

// Synced says whether Networks are all that there are.
func (m *Member) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view.whole && m.mu.failed == ""
}

// Elsewhere are the endpoints that other hosts have on a network, in order of their addresses.
func (m *Member) Elsewhere(id string) []overlay.Elsewhere {
	k := m.known().networks[id]
	if k == nil {
		return nil
	}
	var list []overlay.Elsewhere
	for _, e := range k.sorted() {
		if m.isElsewhere(e) {
			list = append(list, e.Elsewhere)
		}
	}
	return list
}

// isElsewhere says whether an endpoint is another host's.
func (m *Member) isElsewhere(e *endpoint) bool { return e.Owner != m.leases.host && e.At != m.cfg.Addr }
