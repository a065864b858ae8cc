package libnetwork

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/fabric"
)

// joined is a network that runs here and reaches other hosts.
type joined struct {
	network *network.Network
	link    *fabric.Link
	trunk   *engine.Trunk
}

// DefaultMTU is that of a network's interfaces where its creator has not said: what Docker's have.
func (m *Member) DefaultMTU(*network.Network) int { return fabric.InnerMTU(1500, false, false) }

// Join connects a network that runs here to the other hosts. It ends with the engine's network.
func (m *Member) Join(n *network.Network, e *engine.Network) error {
	vni, err := m.numberOf(n)
	if err != nil {
		return errdefs.Unavailable("network %s has no number on the wire yet: %w", n.Name, err)
	}
	cfg := fabric.NetworkConfig{Name: n.Name, VNI: vni, MTU: e.MTU(), GatewayMAC: e.GatewayMAC()}
	for _, p := range n.Pools {
		cfg.Gateways, cfg.Subnets = append(cfg.Gateways, p.Gateway), append(cfg.Subnets, p.Subnet)
	}
	link, err := m.fabric.Open(cfg)
	if err != nil {
		return err
	}
	trunk, err := e.AttachTrunk(link.PortConfig(), link)
	if err != nil {
		return errors.Join(err, link.Close())
	}
	m.mu.Lock()
	m.mu.joined[n.ID] = &joined{network: n, link: link, trunk: trunk}
	m.mu.Unlock()
	m.setEntries(n.ID)
	return nil
}

// numberOf is a network's number on the wire. The first host with an endpoint draws it.
func (m *Member) numberOf(n *network.Network) (uint32, error) {
	if n.VNI != 0 {
		return n.VNI, nil
	}
	ctx, cancel := within(m.ctx, syncTimeout)
	defer cancel()
	var vni, drawn uint32
	err := m.change(ctx, overlayKey(n.ID), func(old []byte) ([]byte, error) {
		var r overlayRecord
		if err := json.Unmarshal(old, &r); err != nil {
			return nil, fmt.Errorf("%w: %w", errRecord, err)
		}
		i := r.subnet(n.Pools[0].Subnet)
		if i < 0 {
			return nil, errRecord
		}
		if vni = r.Subnets[i].Vni; vni != 0 { // another host was faster
			return nil, errNothing
		}
		if drawn == 0 {
			var err error
			if drawn, err = m.takeVNI(ctx, 0); err != nil {
				return nil, err
			}
		}
		vni, r.Subnets[i].Vni = drawn, drawn
		return json.Marshal(r)
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	if drawn != 0 && (err != nil || vni != drawn) {
		err = errors.Join(err, m.giveVNI(ctx, drawn))
	}
	return vni, err
}

// Unjoin notes that a network does not run here any more.
func (m *Member) Unjoin(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.joined, id)
}

func (m *Member) joinedNetworks() map[string]*joined {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mu.joined)
}

// setEntries tells a running network where the endpoints of other hosts are.
func (m *Member) setEntries(id string) {
	j, k := m.joinedNetworks()[id], m.known().networks[id]
	if j == nil || k == nil {
		return
	}
	var entries []fabric.Entry
	for _, e := range k.sorted() {
		if m.isElsewhere(e) {
			entries = append(entries, fabric.Entry{MAC: e.MAC, Addrs: e.Addrs, Host: hostOf(e.At)})
		}
	}
	macs, err := j.link.SetEntries(entries)
	if err != nil {
		m.log.Error("containers of other hosts are not reached", "network", j.network.Name, "error", err)
		return
	}
	j.trunk.SetStatic(macs)
}

// LinkDrops are the counts of what a network's fabric port dropped, and of what belonged to no network, by reason.
func (m *Member) LinkDrops(id string) map[string]uint64 {
	j := m.joinedNetworks()[id]
	if j == nil {
		return nil
	}
	drops := map[string]uint64{}
	for reason, n := range j.link.Drops() {
		drops[fmt.Sprint(reason)] += n
	}
	for reason, n := range m.fabric.Drops() {
		drops[fmt.Sprint(reason)] += n
	}
	return drops
}
