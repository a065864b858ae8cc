package network

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/usernet/usernet/internal/watchdog"
	"github.com/usernet/usernet/network/boltstore"
)

// Options say what the model cannot know by itself.
type Options struct {
	// HostRoutes returns the subnets the host routes; default pools keep away from them. Nil: none.
	HostRoutes func() []netip.Prefix
	// DefaultIPv6 gives new networks IPv6 unless they say otherwise.
	DefaultIPv6 bool
}

// Model is the stored state. Its methods may be called at the same time. Make it with Open.
type Model struct {
	opts Options
	db   *boltstore.DB
	ula  netip.Prefix // the installation's /48

	mu         sync.RWMutex
	networks   map[string]*Network   // by id
	containers map[string]*Container // by id
}

// Open opens the store at path, making it and the networks bridge, host and none where they are missing.
// It fails with ErrLocked where another process has it open.
func Open(path string, opts Options) (*Model, error) {
	db, err := openStore(path)
	if err != nil {
		return nil, err
	}
	m := &Model{opts: opts, db: db, networks: map[string]*Network{}, containers: map[string]*Container{}}
	err = db.Update(func(tx *bolt.Tx) error {
		if err := load(db, tx, bucketNetworks, func(n *Network) { m.networks[n.ID] = n }); err != nil {
			return err
		}
		if err := load(db, tx, bucketContainers, func(c *Container) { m.containers[c.ID] = c }); err != nil {
			return err
		}
		return m.loadULA(tx)
	})
	if err == nil {
		err = m.predefine()
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return m, nil
}

// CopyError is why no copy of the store was made when it was opened; nil where there is one.
func (m *Model) CopyError() error { return m.db.CopyError() }

// Close closes the store.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.Close()
}

// Locks are what has to be watched for hanging; they are held while the disk writes, for bound at most.
func (m *Model) Locks(bound time.Duration) []watchdog.Lock {
	return []watchdog.Lock{watchdog.RWMutex("store", &m.mu, bound)}
}

// loadULA reads the installation's /48, or draws one (RFC 4193, 3.2.2: fd and 40 random bits).
func (m *Model) loadULA(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if v := meta.Get(keyULA); v != nil {
		p, err := netip.ParsePrefix(string(v))
		if err != nil || p.Bits() != 48 || !p.Addr().Is6() {
			return m.db.Damaged(fmt.Errorf("the prefix of IPv6 networks is %q", v))
		}
		m.ula = p
		return nil
	}
	b := [16]byte{0xfd}
	if _, err := rand.Read(b[1:6]); err != nil {
		return err
	}
	m.ula = netip.PrefixFrom(netip.AddrFrom16(b), 48)
	return meta.Put(keyULA, []byte(m.ula.String()))
}

func (m *Model) predefine() error {
	for _, p := range []struct{ name, driver string }{{BridgeName, DriverBridge}, {HostName, DriverHost}, {NoneName, DriverNull}} {
		if _, err := m.findNetwork(p.name); err == nil {
			continue
		}
		n := &Network{Name: p.name, Driver: p.driver}
		if p.driver == DriverBridge {
			if _, err := m.addPools(n, NetworkSpec{}); err != nil {
				return err
			}
		}
		n.EnableIPv4 = true
		if err := m.insertNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // crypto/rand does not fail (Go 1.24)
	return hex.EncodeToString(b)
}

// insertNetwork completes and stores a new network.
func (m *Model) insertNetwork(n *Network) error {
	n.ID, n.Created, n.Scope = newID(), time.Now().UTC(), "local"
	if err := m.db.Update(func(tx *bolt.Tx) error { return put(tx, bucketNetworks, n.ID, n) }); err != nil {
		return fmt.Errorf("network %s not stored: %w", n.Name, err)
	}
	m.networks[n.ID] = n.clone() // parts of n may be the caller's
	return nil
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
	var found []*Network
	for _, n := range m.networks {
		if n.Name == ref {
			return n, nil
		}
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return nil, Errorf(NotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return nil, Errorf(Invalid, "network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
}

// minMTU6 is the smallest link on which IPv6 works, in bytes (RFC 8200, 5).
const minMTU6 = 1280

// CreateNetwork makes a network.
func (m *Model) CreateNetwork(spec NetworkSpec) (*Network, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := checkNetworkName(spec.Name); err != nil {
		return nil, "", err
	}
	if isPredefined(spec.Name) {
		return nil, "", Errorf(Forbidden, "operation is not permitted on predefined %s network", spec.Name)
	}
	for _, n := range m.networks {
		if n.Name == spec.Name {
			return nil, "", Errorf(Conflict, "network with name %s already exists", spec.Name)
		}
	}
	if spec.ConfigOnly && (spec.Internal || spec.Attachable || spec.Scope != "") {
		return nil, "", Errorf(Forbidden, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	}
	if spec.ConfigFrom != "" {
		if err := m.applyConfig(&spec); err != nil {
			return nil, "", err
		}
	}
	switch spec.Driver {
	case "":
		spec.Driver = DriverBridge
	case DriverBridge:
	case DriverHost, DriverNull, "none":
		return nil, "", Errorf(Forbidden, "only one instance of %q network is allowed", spec.Driver)
	default:
		return nil, "", Errorf(NotFound, "could not find plugin %s in v1 plugin registry: plugin not found", spec.Driver)
	}
	if spec.Scope != "" && spec.Scope != "local" {
		return nil, "", Errorf(Invalid, "invalid scope %q: a bridge network has scope local", spec.Scope)
	}
	if err := checkOptions(spec.Options, NetworkOptions, "option"); err != nil {
		return nil, "", err
	}
	for name := range spec.IPAMOptions {
		return nil, "", Errorf(Invalid, "unknown IPAM option %s: the default IPAM driver has none", name)
	}
	n := &Network{
		Name: spec.Name, Driver: spec.Driver, Internal: spec.Internal, Attachable: spec.Attachable,
		ConfigOnly: spec.ConfigOnly, ConfigFrom: spec.ConfigFrom, Options: maps.Clone(spec.Options), Labels: maps.Clone(spec.Labels), IPAMOptions: maps.Clone(spec.IPAMOptions),
	}
	if err := checkIsolated(n); err != nil {
		return nil, "", err
	}
	warning, err := m.addPools(n, spec)
	if err != nil {
		return nil, "", err
	}
	if mtu, err := strconv.Atoi(n.Options["com.docker.network.driver.mtu"]); err == nil && n.EnableIPv6 && mtu < minMTU6 {
		return nil, "", Errorf(Invalid, "invalid MTU %d: a network with IPv6 needs %d at least", mtu, minMTU6)
	}
	if err := m.insertNetwork(n); err != nil {
		return nil, "", err
	}
	return n.clone(), warning, nil
}

// applyConfig fills spec from the config-only network that it names.
func (m *Model) applyConfig(spec *NetworkSpec) error {
	from, err := m.findNetwork(spec.ConfigFrom)
	if err != nil {
		return err
	}
	if !from.ConfigOnly {
		return Errorf(Invalid, "network %s is not a config-only network", from.Name)
	}
	switch {
	case spec.ConfigOnly:
		return Errorf(Forbidden, "a configuration network cannot depend on another configuration network")
	case len(spec.Options) > 0:
		return Errorf(Forbidden, "network driver options are not supported if the network depends on a configuration network")
	case len(spec.Pools) > 0 || len(spec.Labels) > 0 || spec.EnableIPv6 != nil && *spec.EnableIPv6:
		return Errorf(Forbidden, "user specified configurations are not supported if the network depends on a configuration network")
	}
	spec.Pools, spec.Options, spec.Labels = slices.Clone(from.Pools), maps.Clone(from.Options), maps.Clone(from.Labels)
	spec.EnableIPv4, spec.EnableIPv6 = &from.EnableIPv4, &from.EnableIPv6
	return nil
}

// RemoveNetwork removes a network that has no endpoints.
func (m *Model) RemoveNetwork(ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findNetwork(ref)
	if err != nil {
		return err
	}
	if isPredefined(n.Name) {
		return Errorf(Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	var active []string
	for _, c := range m.containers {
		for _, e := range c.Endpoints {
			if e.NetworkID == n.ID && c.Status != Exited {
				active = append(active, fmt.Sprintf("name:%q id:%q", c.Name, e.ID[:12]))
			}
		}
	}
	if len(active) > 0 {
		slices.Sort(active)
		return Errorf(Forbidden, "error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(active, ", "))
	}
	for _, o := range m.networks {
		if n.ConfigOnly && o.ConfigFrom == n.Name {
			return Errorf(Forbidden, "configuration network %q is in use", n.Name)
		}
	}
	if err := m.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketNetworks).Delete([]byte(n.ID)) }); err != nil {
		return fmt.Errorf("network %s not removed from the store: %w", n.Name, err)
	}
	delete(m.networks, n.ID)
	return nil
}
