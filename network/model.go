package network

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/internal/watchdog"
)

// Options say what the model cannot know by itself.
type Options struct {
	// HostRoutes returns the subnets the host routes; default pools keep away from them. Nil: none.
	HostRoutes func() []netip.Prefix
	// DefaultIPv6 gives new networks IPv6 unless they say otherwise.
	DefaultIPv6 bool
	// Allocators reserve the addresses of networks, by the names of their drivers. For others the model chooses addresses.
	Allocators map[string]Allocator
}

// Model is the stored state. Its methods may be called at the same time. Make it with Open.
//
// A change is made in three steps: it is computed from what the model has, which only writers change; stored; and then shown
// to readers. They never wait for the disk.
type Model struct {
	opts  Options
	store Store
	ula   netip.Prefix // the installation's /48; never changes

	writing  sync.Mutex // held by each change from its beginning to its end; whoever holds it may read the maps below
	revision Revision   // of the store, as the maps have it; guarded by writing

	mu         sync.RWMutex          // guards the maps, for readers; held for moments
	networks   map[string]*Network   // by id; what is in it is never changed, but replaced
	containers map[string]*Container // by id; likewise
}

// Open opens what is in a store, which the model owns from then on, and makes the networks bridge, host and none where they are
// missing. Where it fails the store stays the caller's.
func Open(store Store, opts Options) (*Model, error) {
	m := &Model{opts: opts, store: store}
	err := m.update(func() error {
		_, err := m.store.Update(context.Background(), func(tx Tx) error {
			if v := tx.Get(bucketMeta, keySchema); v != nil && string(v) != schema {
				return fmt.Errorf("the state has format %s, and this usernet knows %s: use the version that wrote it, or another --state-dir", v, schema)
			} else if v == nil {
				if err := tx.Put(bucketMeta, keySchema, []byte(schema)); err != nil {
					return err
				}
			}
			return m.loadULA(tx)
		})
		return err
	})
	if err == nil {
		err = m.update(func() error {
			if err := m.refresh(); err != nil {
				return err
			}
			return m.predefine()
		})
	}
	if err != nil {
		return nil, m.explained(err)
	}
	return m, nil
}

// explained has the store say what to do about records that make no sense, where it can.
func (m *Model) explained(err error) error {
	var record *RecordError
	if s, ok := m.store.(interface{ Damaged(cause error) error }); ok && errors.As(err, &record) {
		return s.Damaged(err)
	}
	return err
}

// Close closes the store.
func (m *Model) Close() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.store.Close()
}

// Locks are what has to be watched for hanging; that of changes is held while the disk writes, for bound at most.
func (m *Model) Locks(bound time.Duration) []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("store", &m.writing, bound), watchdog.RWMutex("model", &m.mu, 0)}
}

// errStale says that somebody else has changed the store since the model has read it.
var errStale = errors.New("the store has changed meanwhile")

// maxRetries bounds how often a change is computed anew. Each time somebody else's was stored.
const maxRetries = 100

// update calls f, which computes a change from the model and ends with commit; and calls it again on what another process has
// stored meanwhile, so that f must not change anything itself.
func (m *Model) update(f func() error) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	for range maxRetries {
		err := f()
		if err == nil {
			return nil
		}
		// It may have failed because of what is no longer so, such as a name that was taken.
		if before := m.revision; !errors.Is(err, errStale) {
			if refreshed := m.refreshFrom(before); refreshed != nil || m.revision == before {
				return err
			}
			continue
		}
		if err := m.refresh(); err != nil {
			return m.explained(err)
		}
	}
	return errdefs.Unavailable("the store changes too fast to change it")
}

// refreshFrom reads the store where it has another revision. The caller holds writing.
func (m *Model) refreshFrom(r Revision) error {
	now := r
	err := m.store.View(context.Background(), func(tx Tx) error {
		now = tx.Revision()
		return nil
	})
	if err != nil || now == r {
		return err
	}
	return m.refresh()
}

// Follow shows readers what others change in the store, until ctx ends. It is for stores that several processes share.
func (m *Model) Follow(ctx context.Context) error {
	for {
		m.writing.Lock()
		from := m.revision
		m.writing.Unlock()
		for c, err := range m.store.Watch(ctx, from) {
			if errors.Is(err, ErrCompacted) {
				break // read all anew, and watch from there
			}
			if err != nil {
				return err
			}
			m.writing.Lock()
			if c.Revision > m.revision { // else it is this model's own, or was read with a later one
				err = m.refresh()
			}
			m.writing.Unlock()
			if err != nil {
				return m.explained(err)
			}
		}
		m.writing.Lock()
		err := m.refresh()
		m.writing.Unlock()
		if err != nil {
			return m.explained(err)
		}
	}
}

// refresh reads the whole store. The caller holds writing.
func (m *Model) refresh() error {
	networks, containers := map[string]*Network{}, map[string]*Container{}
	err := m.store.View(context.Background(), func(tx Tx) error {
		m.revision = tx.Revision()
		return errors.Join(
			load(tx, bucketNetworks, func(n *Network) { networks[n.ID] = n }),
			load(tx, bucketContainers, func(c *Container) { containers[c.ID] = c }),
		)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networks, m.containers = networks, containers
	return nil
}

// commit stores a record, or with a nil one removes it, and then shows it to readers. The caller holds writing, in update.
func (m *Model) commit(bucket Bucket, id string, record any) error {
	var value []byte
	if record != nil {
		var err error
		if value, err = json.Marshal(record); err != nil {
			return err
		}
	}
	revision, err := m.store.Update(context.Background(), func(tx Tx) error {
		switch {
		case tx.Revision() != m.revision:
			return errStale
		case record == nil:
			return tx.Delete(bucket, id)
		}
		return tx.Put(bucket, id, value)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
	switch r := record.(type) { // parts of it may be the caller's
	case *Network:
		m.networks[id] = r.clone()
	case *Container:
		m.containers[id] = r.clone()
	case nil:
		delete(m.networks, id)
		delete(m.containers, id)
	}
	return nil
}

// loadULA reads the installation's /48, or draws one (RFC 4193, 3.2.2: fd and 40 random bits).
func (m *Model) loadULA(tx Tx) error {
	if v := tx.Get(bucketMeta, keyULA); v != nil {
		p, err := netip.ParsePrefix(string(v))
		if err != nil || p.Bits() != 48 || !p.Addr().Is6() {
			return &RecordError{bucketMeta, keyULA, fmt.Errorf("the prefix of IPv6 networks is %q", v)}
		}
		m.ula = p
		return nil
	}
	b := [16]byte{0xfd}
	if _, err := rand.Read(b[1:6]); err != nil {
		return err
	}
	m.ula = netip.PrefixFrom(netip.AddrFrom16(b), 48)
	return tx.Put(bucketMeta, keyULA, []byte(m.ula.String()))
}

func (m *Model) predefine() error {
	for _, d := range Drivers {
		if _, err := m.findNetwork(d.Predefined); err == nil || d.Predefined == "" {
			continue
		}
		n := &Network{Name: d.Predefined, Driver: d.Name}
		if d.Interfaces {
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
	n.complete()
	if err := m.commit(bucketNetworks, n.ID, n); err != nil {
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
	var found []*Network
	var named *Network
	for _, n := range m.networks {
		if n.Name == ref && (named == nil || n.Scope == ScopeLocal) { // one of another host may have the name as well
			named = n
		}
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	if named != nil {
		return named, nil
	}
	switch len(found) {
	case 0:
		return nil, errdefs.NotFound("network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return nil, errdefs.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
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

// PrepareNetwork is what CreateNetwork would make now, with an id, without storing it: for what others have to agree to first.
func (m *Model) PrepareNetwork(spec NetworkSpec) (n *Network, warning string, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	if n, warning, err = m.newNetwork(spec); err != nil {
		return nil, "", err
	}
	n.complete()
	return n, warning, nil
}

// ImportNetwork stores a network that was made elsewhere, or that PrepareNetwork has returned, as it is. It replaces the one with
// its id.
func (m *Model) ImportNetwork(n *Network) error {
	if err := n.check(n.ID); err != nil {
		return errdefs.Invalid("network %s: %w", n.Name, err)
	}
	return m.update(func() error { return m.commit(bucketNetworks, n.ID, n) })
}

// newNetwork checks a spec and makes a network of it, without an id. The caller holds writing.
func (m *Model) newNetwork(spec NetworkSpec) (*Network, string, error) {
	if err := checkNetworkName(spec.Name); err != nil {
		return nil, "", err
	}
	if isPredefined(spec.Name) {
		return nil, "", errdefs.Forbidden("operation is not permitted on predefined %s network", spec.Name)
	}
	for _, n := range m.networks {
		if n.Name == spec.Name {
			return nil, "", errdefs.Conflict("network with name %s already exists", spec.Name)
		}
	}
	if spec.ConfigOnly && (spec.Internal || spec.Attachable || spec.Scope != "") {
		return nil, "", errdefs.Forbidden("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
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
		return nil, "", errdefs.NotFound("could not find plugin %s in v1 plugin registry: plugin not found", spec.Driver)
	case driver.Single:
		return nil, "", errdefs.Forbidden("only one instance of %q network is allowed", spec.Driver)
	case spec.Scope != "" && spec.Scope != driver.Scope:
		return nil, "", errdefs.Invalid("invalid scope %q: a %s network has scope %s", spec.Scope, driver.Name, driver.Scope)
	}
	if err := checkOptions(spec.Options, driver.Options, "option"); err != nil {
		return nil, "", err
	}
	for name := range spec.IPAMOptions {
		return nil, "", errdefs.Invalid("unknown IPAM option %s: the default IPAM driver has none", name)
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
		return errdefs.Forbidden("network driver options are not supported if the network depends on a configuration network")
	case len(spec.Pools) > 0 || len(spec.Labels) > 0 || spec.EnableIPv6 != nil && *spec.EnableIPv6:
		return errdefs.Forbidden("user specified configurations are not supported if the network depends on a configuration network")
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
	for _, c := range m.containers {
		for _, e := range c.Endpoints {
			if e.NetworkID == n.ID && c.Status != Exited {
				active = append(active, fmt.Sprintf("name:%q id:%q", c.Name, e.ID[:12]))
			}
		}
	}
	if len(active) > 0 {
		slices.Sort(active)
		return errdefs.Forbidden("error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(active, ", "))
	}
	for _, o := range m.networks {
		if n.ConfigOnly && o.ConfigFrom == n.Name {
			return errdefs.Forbidden("configuration network %q is in use", n.Name)
		}
	}
	if err := m.commit(bucketNetworks, n.ID, nil); err != nil {
		return fmt.Errorf("network %s not removed from the store: %w", n.Name, err)
	}
	return nil
}
