package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// neighbourRules are a network's rules about which of its containers reach each other; nil: all do.
func neighbourRules(n *network.Network) (*policy.NeighbourRules, error) {
	text := n.Settings().Policy
	if text == "" {
		return nil, nil
	}
	r, err := policy.ParseNeighbourRules(text)
	if err != nil {
		return nil, errdefs.Invalid("%w", err)
	}
	return r, nil
}

// holdsFor are the terms that hold for a container: of its labels, its name and its networks.
func (d *Daemon) holdsFor(c *network.Container) []string {
	list := []string{"name=" + c.Name}
	for k, v := range c.Labels {
		list = append(list, k+"="+v)
	}
	for _, e := range c.Endpoints {
		if n := d.networkByID(e.NetworkID); n != nil {
			list = append(list, "network="+n.Name)
		}
	}
	return list
}

// maxTags is how many terms other hosts are told of a container.
const maxTags = 16

// tagsOf are the terms that hold for a container and that a network's rules ask for.
func (d *Daemon) tagsOf(c *network.Container, n *network.Network) []string {
	rules, err := neighbourRules(n)
	if rules == nil || err != nil {
		return nil
	}
	tags := rules.Terms(d.holdsFor(c))
	return tags[:min(len(tags), maxTags)]
}

// updatePolicy brings what decides about the containers of a network in line with the model, before one is attached and
// after each change.
func (d *Daemon) updatePolicy(b *bridge) {
	d.policyMu.Lock()
	defer d.policyMu.Unlock()
	n := d.networkByID(b.record.ID)
	if n == nil {
		return
	}
	rules, err := neighbourRules(n)
	if err != nil { // of a newer usernet's, on another host: nobody passes
		d.log.Warn("a network's policy makes no sense: its containers do not reach each other", "network", n.Name,
			"error", err)
		rules, _ = policy.ParseNeighbourRules("default deny")
	}
	if rules == nil {
		if b.Neighbours() != nil {
			b.SetNeighbours(nil)
		}
		return
	}
	next := b.Neighbours()
	if next == nil || next.Rules().String() != rules.String() {
		next = policy.NewNeighbours(rules)
	}
	d.updateMembers(b, n, next)
	if next != b.Neighbours() {
		b.SetNeighbours(next)
	}
	b.EndPeers(nil) // what passes the switch is asked about packet by packet
}

// members are the addresses of a network that its rules know, and how current that is.
type members struct {
	in      *policy.Neighbours      // that were told
	changes uint64                  // of the network's containers, as network.Model counts them
	addrs   map[string][]netip.Addr // by a container's id
	owners  map[netip.Addr]string   // the other way round
}

// updateMembers tells rules about neighbours which addresses containers have now: those that have changed since they
// were told last, or all where that is not known. The caller holds d.policyMu.
func (d *Daemon) updateMembers(b *bridge, n *network.Network, rules *policy.Neighbours) {
	m := &b.members
	changed, now, known := d.model.ChangedOn(n.ID, m.changes)
	m.changes = now
	if m.in != rules || !known || d.member != nil && n.SpansHosts() {
		m.in, m.addrs, m.owners = rules, map[string][]netip.Addr{}, map[netip.Addr]string{}
		rules.SetMembers(d.membersOf(n, m))
		return
	}
	for _, id := range changed {
		var gone []netip.Addr
		for _, a := range m.addrs[id] {
			if m.owners[a] == id { // else it is another's by now
				gone = append(gone, a)
				delete(m.owners, a)
			}
		}
		delete(m.addrs, id)
		holds := map[netip.Addr][]string{}
		if c, err := d.model.ContainerWithoutPorts(id); err == nil {
			d.addMembers(holds, c, n, m)
		}
		rules.ChangeMembers(holds, gone)
	}
}

// addMembers adds what holds for the addresses of a container on a network.
func (d *Daemon) addMembers(to map[netip.Addr][]string, c *network.Container, n *network.Network, m *members) {
	for _, e := range c.Endpoints {
		if e.NetworkID != n.ID {
			continue
		}
		holds := d.holdsFor(c)
		addrs := endpointAddrs(e)
		if e.MAC != (network.MAC{}) {
			addrs = append(addrs, vswitch.LinkLocal(e.MAC[:]))
		}
		for _, a := range addrs {
			to[a] = holds
			m.addrs[c.ID], m.owners[a] = append(m.addrs[c.ID], a), c.ID
		}
	}
}

// membersOf says what holds for who has which address on a network, on all hosts, and notes it in m.
func (d *Daemon) membersOf(n *network.Network, m *members) map[netip.Addr][]string {
	members := map[netip.Addr][]string{}
	if d.member != nil && n.SpansHosts() {
		for _, e := range d.member.Elsewhere(n.ID) {
			holds := append([]string{"name=" + e.Name}, e.Tags...)
			for _, a := range append(e.Addrs, vswitch.LinkLocal(e.MAC[:])) {
				members[a] = holds
			}
		}
	}
	for _, c := range d.model.Find(network.OnNetwork(n.ID)) {
		d.addMembers(members, c, n, m)
	}
	return members
}

// SetNetworkPolicy implements api.Backend.
func (d *Daemon) SetNetworkPolicy(_ context.Context, ref, text string) error {
	rules, err := policy.ParseNeighbourRules(text)
	if err != nil {
		return errdefs.Invalid("%w", err)
	}
	return d.changeOptions(ref, map[string]string{policyOption: rules.String()})
}

const policyOption = "usernet.policy"

// policyChanged has a network decide by what its record says now, and other hosts know what they need for that.
func (d *Daemon) policyChanged(id string) {
	if b := d.bridge(id); b != nil {
		d.updatePolicy(b)
	}
	if n := d.networkByID(id); n != nil {
		for _, c := range d.model.Find(network.OnNetwork(n.ID)) {
			d.tellMembers(c.ID)
		}
	}
}
