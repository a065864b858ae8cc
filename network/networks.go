package network

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
)

// insertNetwork completes and stores a new network.
func (m *Model) insertNetwork(n *Network) error {
	n.complete()
	if err := m.commit(write{bucketNetworks, n.ID, n}); err != nil {
		return fmt.Errorf("network %s not stored: %w", n.Name, err)
	}
	return nil
}

// complete gives a new network what each has.
func (n *Network) complete() {
	n.ID, n.Created, n.Scope = newID(), time.Now().UTC(), n.driver().Scope
}

// Networks returns all networks, by name.
func (m *Model) Networks() []*Network {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Network, 0, len(m.networks))
	for _, n := range m.networks {
		list = append(list, n.clone())
	}
	slices.SortFunc(list, func(a, b *Network) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Network finds one by full id, name or unique id prefix, in this order.
func (m *Model) Network(ref string) (*Network, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findNetwork(ref)
	if err != nil {
		return nil, err
	}
	return n.clone(), nil
}

func (m *Model) findNetwork(ref string) (*Network, error) {
	if n := m.networks[ref]; n != nil {
		return n, nil
	}
	var named *Network
	m.postings.each(Term{kindNetworkName, ref}, func(id string) bool {
		if n := m.networks[id]; named == nil || hasName(n, named) {
			named = n
		}
		return true
	})
	if named != nil {
		return named, nil
	}
	found := m.postings.prefixed(kindNetworkID, ref)
	switch len(found) {
	case 0:
		return nil, errdefs.NotFound("network %s not found", ref)
	case 1:
		return m.networks[found[0]], nil
	}
	return nil, errdefs.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
}

// hasName says whether a name means network a rather than b, which have it both: one of this host goes before one that
// spans hosts. Two that span hosts were made in two halves of a partition: the older one has the name, on all hosts.
func hasName(a, b *Network) bool {
	if local := a.Scope == ScopeLocal; local != (b.Scope == ScopeLocal) {
		return local
	}
	if !a.Created.Equal(b.Created) {
		return a.Created.Before(b.Created)
	}
	return a.ID < b.ID
}

// minMTU6 is the smallest link on which IPv6 works, in bytes (RFC 8200, 5).
const minMTU6 = 1280

// CreateNetwork makes a network.
func (m *Model) CreateNetwork(spec NetworkSpec) (n *Network, warning string, err error) {
	err = m.update(func() (err error) {
		if n, warning, err = m.newNetwork(spec); err != nil {
			return err
		}
		if err := m.insertNetwork(n); err != nil {
			return err
		}
		n = n.clone()
		return nil
	})
	return n, warning, err
}

// PrepareNetwork is what CreateNetwork would make now, with an id, without storing it: for what others have to agree to
// first.
func (m *Model) PrepareNetwork(spec NetworkSpec) (n *Network, warning string, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	if n, warning, err = m.newNetwork(spec); err != nil {
		return nil, "", err
	}
	n.complete()
	return n, warning, nil
}

// ImportNetwork stores a network that was made elsewhere, or that PrepareNetwork has returned, as it is. It replaces
// the one with its id.
func (m *Model) ImportNetwork(n *Network) error {
	if err := n.check(n.ID); err != nil {
		return errdefs.Invalid("network %s: %w", n.Name, err)
	}
	return m.update(func() error { return m.commit(write{bucketNetworks, n.ID, n}) })
}

// newNetwork checks a spec and makes a network of it, without an id. The caller holds writing.
func (m *Model) newNetwork(spec NetworkSpec) (*Network, string, error) {
	if err := checkNetworkName(spec.Name); err != nil {
		return nil, "", err
	}
	if isPredefined(spec.Name) {
		return nil, "", errdefs.Forbidden("operation is not permitted on predefined %s network", spec.Name)
	}
	if m.postings.first(Term{kindNetworkName, spec.Name}) != "" {
		return nil, "", errdefs.Conflict("network with name %s already exists", spec.Name)
	}
	if spec.ConfigOnly && (spec.Internal || spec.Attachable || spec.Scope != "") {
		return nil, "", errdefs.Forbidden(
			"configuration network can only contain network specific fields. Network operator fields like [ ingress " +
				"| internal | attachable | scope ] are not supported.")
	}
	if spec.ConfigFrom != "" {
		if err := m.applyConfig(&spec); err != nil {
			return nil, "", err
		}
	}
	if spec.Driver == "" {
		spec.Driver = Drivers[0].Name
	}
	driver, known := DriverOf(spec.Driver)
	switch {
	case !known:
		return nil, "", errdefs.NotFound("could not find plugin %s in v1 plugin registry: plugin not found",
			spec.Driver)
	case driver.Single:
		return nil, "", errdefs.Forbidden("only one instance of %q network is allowed", spec.Driver)
	case spec.Scope != "" && spec.Scope != driver.Scope:
		return nil, "", errdefs.Invalid("invalid scope %q: networks of driver %s have scope %s", spec.Scope,
			driver.Name, driver.Scope)
	}
	if err := checkOptions(spec.Options, driver.Options, "option"); err != nil {
		return nil, "", err
	}
	for name := range spec.IPAMOptions {
		return nil, "", errdefs.Invalid("unknown IPAM option %s: the default IPAM driver has none", name)
	}
	n := &Network{
		Name:        spec.Name,
		Driver:      spec.Driver,
		Internal:    spec.Internal,
		Attachable:  spec.Attachable,
		ConfigOnly:  spec.ConfigOnly,
		ConfigFrom:  spec.ConfigFrom,
		Options:     maps.Clone(spec.Options),
		Labels:      maps.Clone(spec.Labels),
		IPAMOptions: maps.Clone(spec.IPAMOptions),
	}
	if err := checkIsolated(n); err != nil {
		return nil, "", err
	}
	warning, err := m.addPools(n, spec)
	if err != nil {
		return nil, "", err
	}
	if mtu := n.Settings().MTU; mtu != 0 && n.EnableIPv6 && mtu < minMTU6 {
		return nil, "", errdefs.Invalid("invalid MTU %d: a network with IPv6 needs %d at least", mtu, minMTU6)
	}
	return n, warning, nil
}

// applyConfig fills spec from the config-only network that it names.
func (m *Model) applyConfig(spec *NetworkSpec) error {
	from, err := m.findNetwork(spec.ConfigFrom)
	if err != nil {
		return err
	}
	if !from.ConfigOnly {
		return errdefs.NotFound("network %s is not a config-only network", from.Name)
	}
	switch {
	case spec.ConfigOnly:
		return errdefs.Forbidden("a configuration network cannot depend on another configuration network")
	case len(spec.Options) > 0:
		return errdefs.Forbidden(
			"network driver options are not supported if the network depends on a configuration network")
	case len(spec.Pools) > 0 || len(spec.Labels) > 0 || spec.EnableIPv6 != nil && *spec.EnableIPv6:
		return errdefs.Forbidden(
			"user specified configurations are not supported if the network depends on a configuration network")
	}
	spec.Pools, spec.Options, spec.Labels = slices.Clone(from.Pools), maps.Clone(from.Options), maps.Clone(from.Labels)
	spec.EnableIPv4, spec.EnableIPv6 = &from.EnableIPv4, &from.EnableIPv6
	return nil
}

// RemoveNetwork removes a network that has no endpoints.
func (m *Model) RemoveNetwork(ref string) error {
	return m.update(func() error { return m.removeNetwork(ref) })
}

func (m *Model) removeNetwork(ref string) error {
	n, err := m.findNetwork(ref)
	if err != nil {
		return err
	}
	if isPredefined(n.Name) {
		return errdefs.Forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	}
	var active []string
	m.postings.each(OnNetwork(n.ID), func(id string) bool {
		c := m.containers[id]
		for _, e := range c.Endpoints {
			if e.NetworkID == n.ID && c.Status != Exited {
				active = append(active, fmt.Sprintf("name:%q id:%q", c.Name, e.ID[:12]))
			}
		}
		return true
	})
	if len(active) > 0 {
		slices.Sort(active)
		return errdefs.Forbidden("error while removing network: network %s has active endpoints (%s)", n.Name,
			strings.Join(active, ", "))
	}
	for _, o := range m.networks {
		if n.ConfigOnly && o.ConfigFrom == n.Name {
			return errdefs.Forbidden("configuration network %q is in use", n.Name)
		}
	}
	if err := m.commit(write{bucketNetworks, n.ID, nil}); err != nil {
		return fmt.Errorf("network %s not removed from the store: %w", n.Name, err)
	}
	return nil
}
