package libnetwork

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// Validate refuses networks that Docker's hosts could not be on.
func (m *Member) Validate(n *network.Network) error {
	s := n.Settings()
	switch _, said := n.Options[optEncrypted]; {
	case said && s.Encrypted:
		return errdefs.Invalid("Docker's hosts encrypt by IPsec, which needs the kernel's privileges: leave out encrypted")
	case len(s.Peers) > 0:
		return errdefs.Invalid("a network of Docker's hosts has no other peers: leave out usernet.peers")
	case s.TCP == network.TCPSockets:
		return errdefs.Invalid("Docker's hosts carry TCP in frames: leave out usernet.tcp")
	case s.VNI != 0 && (s.VNI < firstVNI || s.VNI >= lastVNI):
		return errdefs.Invalid("Docker's hosts use the numbers %d to %d on the wire, not %d", firstVNI, lastVNI-1, s.VNI)
	case n.EnableIPv6:
		return errdefs.Invalid("Docker's hosts carry IPv4 only on their overlay networks")
	}
	return nil
}

// undo is what takes back what was done, the last first.
type undo []func(ctx context.Context) error

// CreateNetwork has all hosts know a network, as a daemon does that makes one: its subnet, its number and its addresses
// are taken first. Without the store it is not made, and on an error nothing is left.
func (m *Member) CreateNetwork(ctx context.Context, n *network.Network) error {
	if err := m.Validate(n); err != nil {
		return err
	}
	if len(n.Pools) != 1 || !n.Pools[0].Subnet.Addr().Is4() || !n.Pools[0].Gateway.IsValid() {
		return errdefs.Invalid("a network of Docker's hosts has one subnet, of IPv4, with a gateway")
	}
	for _, k := range m.known().networks {
		if k.network.Name == n.Name && k.network.ID != n.ID {
			return errdefs.Conflict("network with name %s already exists", n.Name)
		}
	}
	var done undo
	err := m.create(ctx, n, &done)
	if err == nil {
		return m.reread(ctx)
	}
	after, cancel := within(context.WithoutCancel(ctx), syncTimeout)
	defer cancel()
	for i := len(done) - 1; i >= 0; i-- {
		if err := done[i](after); err != nil {
			m.log.Warn("a part of a network that was not made is left in the store", "network", n.Name, "error", err)
		}
	}
	if errors.Is(err, overlay.ErrPoolTaken) || errors.Is(err, errdefs.ErrConflict) {
		return err
	}
	return errdefs.Unavailable("network %s was not made: %w", n.Name, err)
}

// reread has what was written known here at once.
func (m *Member) reread(ctx context.Context) error {
	v, err := m.read(ctx)
	if err != nil {
		return errdefs.Unavailable("the store of Docker's networks: %w", err)
	}
	m.mu.Lock()
	m.mu.view = v
	m.mu.Unlock()
	m.wake()
	return nil
}

// create writes the records, in the order in which a daemon does.
func (m *Member) create(ctx context.Context, n *network.Network, done *undo) error {
	p := n.Pools[0]
	if err := m.takePool(ctx, p.Subnet); err != nil {
		return err
	}
	*done = append(*done, func(ctx context.Context) error { return m.givePool(ctx, p.Subnet) })
	if err := m.putAddresses(ctx, p); err != nil {
		return err
	}
	vni, err := m.takeVNI(ctx, n.Settings().VNI)
	if err != nil {
		return err
	}
	*done = append(*done, func(ctx context.Context) error { return m.giveVNI(ctx, vni) })
	gateway := netip.PrefixFrom(p.Gateway, p.Subnet.Bits()).String()
	for _, record := range []struct {
		key   string
		value any
	}{
		{overlayKey(n.ID), overlayRecord{MTU: n.Settings().MTU, Subnets: []overlaySubnet{{
			SubnetIP: p.Subnet.String(), GwIP: gateway, Vni: vni,
		}}}},
		{countKey(n.ID), countRecord{}},
		{networkKey(n.ID), newNetworkRecord(n)},
	} {
		value, err := json.Marshal(record.value)
		if err != nil {
			return err
		}
		if err := m.putNew(ctx, record.key, value); err != nil {
			return err
		}
		*done = append(*done, func(ctx context.Context) error { return m.remove(ctx, record.key) })
	}
	return nil
}

func (m *Member) putNew(ctx context.Context, key string, value []byte) error {
	return m.change(ctx, key, func([]byte) ([]byte, error) { return value, nil })
}

func (m *Member) remove(ctx context.Context, key string) error {
	return m.change(ctx, key, func([]byte) ([]byte, error) { return nil, nil })
}

// newNetworkRecord is a network as the daemons read it: they need all of these fields.
func newNetworkRecord(n *network.Network) map[string]any {
	p := n.Pools[0]
	gateway := netip.PrefixFrom(p.Gateway, p.Subnet.Bits()).String()
	aux := map[string]string{}
	for name, a := range p.Aux {
		aux[name] = netip.PrefixFrom(a, p.Subnet.Bits()).String()
	}
	var config ipamConfig
	if p.Configured {
		config = ipamConfig{PreferredPool: p.Subnet.String(), Gateway: p.Gateway.String()}
	}
	options := map[string]string{}
	for name, v := range n.Options {
		if name != optEncrypted {
			options[name] = v
		}
	}
	labels := n.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	data := ipamData{AddressSpace: addressSpace, Gateway: gateway, Pool: p.Subnet.String(), AuxAddresses: aux}
	return map[string]any{
		"id": n.ID, "name": n.Name, "created": n.Created, "networkType": n.Driver, "scope": string(n.Scope),
		"labels": labels, "enableIPv6": false, "internal": n.Internal, "attachable": n.Attachable, "ingress": false,
		"inDelete": false, "configOnly": false, "configFrom": "", "persist": true, "postIPv6": false,
		"loadBalancerIP": "", "loadBalancerMode": "NAT", "addrSpace": addressSpace,
		"ipamType": "default", "ipamOptions": map[string]string{},
		"ipamV4Config": text([]ipamConfig{config}),
		"ipamV4Info":   text([]ipamInfo{{IPAMData: text(data), PoolID: poolID(p.Subnet)}}),
		"generic": map[string]any{
			"com.docker.network.enable_ipv6": false, "com.docker.network.generic": options,
		},
	}
}

// text is JSON in a string; what is given can be written.
func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// poolsRecord is the subnets that all networks have.
type poolsRecord struct {
	Scope   string
	Subnets map[string]json.RawMessage // by the pool's id
}

// poolRecord is one of them.
type poolRecord struct {
	ParentKey struct{ AddressSpace, Subnet, ChildSubnet string }
	Pool      string
	Range     json.RawMessage `json:",omitempty"`
	RefCount  int
}

// changePools reads and writes the subnets.
func (m *Member) changePools(ctx context.Context, edit func(r *poolsRecord) error) error {
	return m.change(ctx, keyPools, func(old []byte) ([]byte, error) {
		r := poolsRecord{Scope: string(network.ScopeGlobal)}
		if old != nil {
			if err := json.Unmarshal(old, &r); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", keyPools, errRecord, err)
			}
		}
		if r.Subnets == nil {
			r.Subnets = map[string]json.RawMessage{}
		}
		if err := edit(&r); err != nil {
			return nil, err
		}
		return json.Marshal(r)
	})
}

// takePool takes a subnet that overlaps no other network's.
func (m *Member) takePool(ctx context.Context, subnet netip.Prefix) error {
	return m.changePools(ctx, func(r *poolsRecord) error {
		for id, raw := range r.Subnets {
			var p poolRecord
			if err := json.Unmarshal(raw, &p); err != nil {
				return fmt.Errorf("subnet %.60q: %w", id, errRecord)
			}
			if other, err := netip.ParsePrefix(p.Pool); err == nil && other.Overlaps(subnet) {
				return errdefs.Forbidden("invalid pool request: Pool overlaps with other one on this address space: %w",
					overlay.ErrPoolTaken)
			}
		}
		r.Subnets[poolID(subnet)] = json.RawMessage(text(poolRecord{Pool: subnet.String(), RefCount: 1}))
		return nil
	})
}

// givePool gives a subnet back, with its addresses, when no other network has it.
func (m *Member) givePool(ctx context.Context, subnet netip.Prefix) error {
	last := false
	err := m.changePools(ctx, func(r *poolsRecord) error {
		raw, is := r.Subnets[poolID(subnet)]
		if !is {
			return errNothing
		}
		var p poolRecord
		if err := json.Unmarshal(raw, &p); err != nil {
			return fmt.Errorf("subnet %v: %w", subnet, errRecord)
		}
		if p.RefCount--; p.RefCount > 0 {
			r.Subnets[poolID(subnet)] = json.RawMessage(text(p))
			return nil
		}
		last = true
		delete(r.Subnets, poolID(subnet))
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	if err == nil && last {
		err = m.remove(ctx, addressesKey(subnet))
	}
	return err
}

// putAddresses writes the bitmap of a new subnet: what no container may have is taken.
func (m *Member) putAddresses(ctx context.Context, p network.Pool) error {
	b := newBitmap(poolID(p.Subnet), sizeOf(p.Subnet))
	b.set(0, true)
	b.set(b.size-1, true)
	b.set(ordinal(p.Subnet, p.Gateway), true)
	for _, a := range p.Aux {
		b.set(ordinal(p.Subnet, a), true)
	}
	value, err := b.encode()
	if err != nil {
		return err
	}
	return m.putNew(ctx, addressesKey(p.Subnet), value)
}

// takeVNI takes a number on the wire: the wanted one, or the lowest that is free.
func (m *Member) takeVNI(ctx context.Context, want uint32) (vni uint32, err error) {
	err = m.change(ctx, keyVNIs, func(old []byte) ([]byte, error) {
		b := newBitmap("vxlan-id", lastVNI-firstVNI+1)
		if old != nil {
			if b, err = decodeBitmap(old); err != nil || b.size != lastVNI-firstVNI+1 {
				return nil, fmt.Errorf("%s: %w", keyVNIs, errBits)
			}
		}
		bit, is := b.firstFree(0, lastVNI-firstVNI-1)
		if want != 0 {
			bit = uint64(want - firstVNI)
			is = !b.isSet(bit)
		}
		if !is {
			return nil, errdefs.Conflict("network number %s on the wire (VXLAN) is another network's",
				strconv.Itoa(int(want)))
		}
		b.set(bit, true)
		vni = firstVNI + uint32(bit)
		return b.encode()
	})
	return vni, err
}

func (m *Member) giveVNI(ctx context.Context, vni uint32) error {
	if vni < firstVNI {
		return nil // another range than the daemons' own
	}
	return m.changeBits(ctx, keyVNIs, func(b *bitmap) error {
		b.set(uint64(vni-firstVNI), false)
		return nil
	})
}

// RemoveNetwork has all hosts forget a network. It is refused while a record of an endpoint of any host is on it. The
// count does not decide: a daemon that loses the store while it deletes an endpoint leaves the count too high for ever.
func (m *Member) RemoveNetwork(ctx context.Context, id string) error {
	count, err := m.store.Get(ctx, countKey(id)) // before the records: an endpoint that comes later is counted later
	if err != nil && !errors.Is(err, ErrNotFound) {
		return errdefs.Unavailable("the store of Docker's networks: %w", err)
	}
	v, err := m.read(ctx)
	if err != nil {
		return errdefs.Unavailable("the store of Docker's networks: %w", err)
	}
	k := v.networks[id]
	if k == nil {
		return nil
	}
	endpoints, err := m.store.List(ctx, join(keyEndpoints, id)) // also those that read leaves out
	if err != nil {
		return errdefs.Unavailable("network %s was not removed: %w", k.network.Name, err)
	}
	if n := len(endpoints); n > 0 {
		return errdefs.Forbidden("error while removing network: network %s has active endpoints: %d, on this or other hosts",
			k.network.Name, n)
	}
	for _, step := range []func() error{
		func() error { return m.dropCount(ctx, count) }, // which fails where an endpoint has come meanwhile
		func() error { return m.remove(ctx, networkKey(id)) },
		func() error { return m.remove(ctx, overlayKey(id)) },
		func() error { return m.giveVNI(ctx, k.network.VNI) },
		func() error { return m.givePool(ctx, k.network.Pools[0].Subnet) },
	} {
		if err := step(); err != nil {
			return errdefs.Unavailable("network %s was not removed whole: %w", k.network.Name, err)
		}
	}
	return m.reread(ctx)
}

// dropCount deletes a count, if it is still that. There may be none.
func (m *Member) dropCount(ctx context.Context, p Pair) error {
	if p.Index == 0 {
		return nil
	}
	return m.store.Delete(ctx, p.Key, p.Index)
}

// PutAgain has others know a network that they removed while a container of this host was on it, as after the store has
// lost its data. The addresses that this host's endpoints have are taken in its new bitmap.
func (m *Member) PutAgain(n *network.Network) error {
	ctx, cancel := within(m.ctx, syncTimeout)
	defer cancel()
	again := *n
	again.Options = map[string]string{"com.docker.network.driver.overlay.vxlanid_list": strconv.Itoa(int(n.VNI))}
	for name, v := range n.Options {
		again.Options[name] = v
	}
	if err := m.CreateNetwork(ctx, &again); err != nil {
		return err
	}
	return m.changeBits(ctx, addressesKey(n.Pools[0].Subnet), func(b *bitmap) error {
		for _, a := range m.leases.on(n.ID) {
			b.set(ordinal(n.Pools[0].Subnet, a), true)
		}
		return nil
	})
}

// Pools are the subnets of all networks.
func (m *Member) Pools() []netip.Prefix {
	var list []netip.Prefix
	for _, k := range m.known().networks {
		for _, p := range k.network.Pools {
			list = append(list, p.Subnet)
		}
	}
	return list
}
