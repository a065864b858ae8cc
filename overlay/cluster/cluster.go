package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/network/boltstore"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/seal"
	"github.com/usernet/usernet/overlay/table"
)

// DefaultPort is the UDP port of VXLAN (RFC 7348, section 5), taken where it is free.
const DefaultPort = 4789

// Config says how a host is a member. Dir and Backend have to be given.
type Config struct {
	Dir string // has the identity and the replica; made with mode 0700
	// Backend opens what spreads the records. The identity is this host's; addr is where others reach it.
	Backend func(id Identity, addr netip.Addr) (table.Backend, error)
	// Scattered says that the backend has no single place that decides: hosts then begin to claim at different blocks,
	// so that they seldom claim the same.
	Scattered bool
	Advertise Advertised
	// Towards are addresses (HOST:PORT) that lead to the other hosts, such as the store's.
	Towards []string
	Name    string // the machine's host name
	Version string
	Logger  *slog.Logger
	// Changed is called with what became different, by goroutines of the cluster. Nil: nobody is told.
	Changed func(table.Changes)
	// Event is called with what people have to know: an action and its attributes. Nil: nobody is told.
	Event func(action string, attributes map[string]string)
}

// Cluster is a membership. Make it with Open, end it with Close. Its methods may be called at the same time.
type Cluster struct {
	cfg     Config
	log     *slog.Logger
	replica *boltstore.DB
	pins    *seal.Pins
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	mu struct {
		sync.Mutex
		id     Identity
		table  *table.Table
		fabric *fabric.Fabric
		addrs  []netip.Addr // as advertised now
		// own are the endpoints of this host's containers, by container; keys by network count them.
		own    map[string][]overlay.Endpoint
		joined map[string]*joined // by network id
		leases map[string]*leases // by network id
		// refused are the hosts that came with another key than before.
		refused map[overlay.HostID]bool
		seen    map[overlay.HostID]netip.AddrPort // addresses of others that they do not name
		reached map[overlay.HostID]bool           // others that answer
		rates   map[overlay.HostID]*rate
		left    bool // Leave was called
	}
}

// Open reads who this host is and its replica, and opens the fabric's sockets. Nothing is told to others before Start.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	id, err := loadIdentity(cfg.Dir, time.Now())
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{cfg: cfg, log: cfg.Logger}
	if c.pins, err = seal.LoadPins(cfg.Dir); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.mu.id = id
	c.mu.own, c.mu.joined, c.mu.leases = map[string][]overlay.Endpoint{}, map[string]*joined{}, map[string]*leases{}
	c.mu.refused, c.mu.rates = map[overlay.HostID]bool{}, map[overlay.HostID]*rate{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.replica, err = boltstore.Open(filepath.Join(cfg.Dir, "overlay.db")); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.replica.Close())
	}
	return c, nil
}

// open makes table, fabric and backend for the identity that the host has.
func (c *Cluster) open() error {
	addrs, err := c.cfg.Advertise.Resolve(c.cfg.Towards)
	if err != nil {
		return err
	}
	id := c.mu.id
	f, err := c.openFabric(&id)
	if err != nil {
		return err
	}
	backend, err := c.cfg.Backend(id, addrs[0])
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t, err := table.Open(table.Config{
		Host: id.ID, Incarnation: id.Incarnation, Store: c.replica, Backend: backend, Logger: c.log, Resurrect: c.inUse,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("cluster: %w", err), backend.Close(), f.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.id, c.mu.addrs, c.mu.table, c.mu.fabric = id, addrs, t, f
	return nil
}

// openFabric binds the port that was asked for, or the one that this host had, or VXLAN's, or any.
func (c *Cluster) openFabric(id *Identity) (*fabric.Fabric, error) {
	ports := []uint16{c.cfg.Advertise.port}
	if ports[0] == 0 {
		ports = []uint16{DefaultPort, 0}
		if id.Port != 0 {
			ports = []uint16{id.Port, 0}
		}
	}
	var errs []error
	for _, port := range ports {
		f, err := fabric.New(fabric.Config{
			Host:    id.ID,
			Listen:  netip.AddrPortFrom(netip.Addr{}, port),
			Key:     seal.PrivateKey(id.PrivateKey),
			Pins:    c.pins,
			Refused: c.keyRefused,
			Logger:  c.log,
		})
		if err == nil {
			if bound := f.Addrs()[0].Port(); bound != id.Port {
				id.Port = bound
				err = id.save(c.cfg.Dir)
			}
			if err == nil {
				return f, nil
			}
			errs = append(errs, f.Close())
		}
		errs = append(errs, err)
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("cluster: %w", errors.Join(errs...))
}

// Start begins to follow the backend and to tell others of this host. Containers that live on are to be told by
// SetContainer before; what others know of this host's containers otherwise is taken back.
func (c *Cluster) Start() {
	c.ended.Go(c.lookAround)
	c.run()
}

// run starts what follows the table that there is now.
func (c *Cluster) run() {
	c.mu.Lock()
	t := c.mu.table
	c.mu.Unlock()
	c.putHost()
	c.forgetEndpoints()
	t.Start()
	c.ended.Go(func() { c.follow(t) })
}

// Close ends the membership of this life: others have the host marked down, and know its containers for
// table.RecordTTL.
func (c *Cluster) Close() error {
	c.cancel()
	c.mu.Lock()
	t, f := c.mu.table, c.mu.fabric
	c.mu.Unlock()
	err := t.Close()
	c.ended.Wait()
	return errors.Join(err, f.Close(), c.replica.Close())
}

// follow takes over what changed, until the table is closed.
func (c *Cluster) follow(t *table.Table) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.Changed():
		}
		if t != c.Table() {
			return // the host has another identity
		}
		changes := t.TakeChanges()
		if changes.Duplicate != nil {
			c.becomeAnother(*changes.Duplicate)
			return // another goroutine follows
		}
		_ = isolate.Call(c.log, "the cluster's changes", func() error { c.changed(changes); return nil })
	}
}

// changed brings fabric and addresses in line with the table, and tells the daemon.
func (c *Cluster) changed(changes table.Changes) {
	t := c.Table()
	if changes.Usurped != nil {
		c.event("duplicate-host", map[string]string{"host": string(changes.Usurped.Owner)})
		c.log.Error(
			"another daemon has started with this host's id, from a copy of its state directory; it will draw another one",
		)
		c.putHost()
	}
	for _, conflict := range changes.Lost {
		c.event("conflict", map[string]string{"key": conflict.Own.Key, "host": string(conflict.Other.Owner)})
	}
	if changes.Hosts || changes.Synced {
		c.setPeers(t.Hosts())
	}
	if changes.Hosts {
		for id := range c.joinedNetworks() {
			changes.Endpoints[id] = true // which of them are down
		}
	}
	for id := range changes.Endpoints {
		c.setEntries(id)
	}
	for id := range changes.Networks {
		if _, is := t.Network(id); !is {
			c.networkGone(t, id)
		}
	}
	if changes.Synced || len(changes.Networks) > 0 {
		c.ended.Go(func() { c.claimAhead(t) })
	}
	if c.cfg.Changed != nil {
		c.cfg.Changed(changes)
	}
}

// networkGone takes this host's blocks of a network away that was removed, and puts the network again where containers
// of this host are still on it: they were started while somebody removed it.
func (c *Cluster) networkGone(t *table.Table, id string) {
	if c.inUse(id) {
		return // the daemon still has its record, and puts it again
	}
	for _, b := range t.Blocks(id) {
		t.Drop(overlay.BlockKey(id, b.Prefix))
	}
	c.mu.Lock()
	delete(c.mu.leases, id)
	c.mu.Unlock()
}

// becomeAnother draws a new identity, since another daemon with this one is there before: the state directory is a
// copy.
func (c *Cluster) becomeAnother(other table.Row) {
	c.log.Error(
		"another daemon has this host's id: the state directory is a copy of another host's. This host draws a new id",
		"id",
		c.Identity().ID,
	)
	id := newIdentity()
	c.mu.Lock()
	id.Incarnation = c.mu.id.Incarnation
	c.mu.Unlock()
	if err := id.save(c.cfg.Dir); err != nil {
		c.log.Error("this host goes on without a cluster", "error", err)
		return
	}
	c.event("duplicate-host", map[string]string{"host": string(other.Owner), "new": string(id.ID)})
	c.reopen(id)
}

// reopen makes table, fabric and backend anew, for another identity or another address.
func (c *Cluster) reopen(id Identity) {
	c.mu.Lock()
	t, f, old := c.mu.table, c.mu.fabric, c.mu.joined
	if id.ID != c.mu.id.ID {
		c.mu.leases = map[string]*leases{} // those blocks are the other's
	}
	c.mu.id, c.mu.joined = id, map[string]*joined{}
	for container, list := range c.mu.own {
		list = slices.Clone(list)
		for i := range list {
			list[i].Host, list[i].Incarnation = id.ID, id.Incarnation
		}
		c.mu.own[container] = list
	}
	c.mu.Unlock()
	for _, j := range old {
		j.trunk.Detach()
	}
	if err := errors.Join(t.Close(), f.Close()); err != nil {
		c.log.Warn("what reached other hosts did not end cleanly", "error", err)
	}
	if err := c.open(); err != nil {
		c.log.Error("this host goes on without a cluster", "error", err)
		return
	}
	for _, j := range old {
		if err := c.Join(j.network, j.engine); err != nil {
			c.log.Error("a network does not reach other hosts any more", "network", j.network.Name, "error", err)
		}
	}
	c.run()
	c.putEndpoints()
}

// Table is the replica. It is another one after the host has drawn a new identity.
func (c *Cluster) Table() *table.Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.table
}

// Identity is who this host is.
func (c *Cluster) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.id
}

// putHost has others know where this host is.
func (c *Cluster) putHost() {
	c.mu.Lock()
	if c.mu.left {
		c.mu.Unlock()
		return
	}
	h := overlay.Host{
		ID:          c.mu.id.ID,
		Name:        c.cfg.Name,
		Incarnation: c.mu.id.Incarnation,
		Key:         c.mu.id.PublicKey(),
		Codecs:      []string{"vxlan"},
		Version:     c.cfg.Version,
	}
	h.Seen = maps.Clone(c.mu.seen)
	for _, a := range c.mu.addrs {
		h.Addrs = append(h.Addrs, netip.AddrPortFrom(a, c.mu.id.Port))
	}
	t := c.mu.table
	c.mu.Unlock()
	value, err := overlay.Encode(h)
	if err == nil {
		err = t.Put(overlay.HostKey(h.ID), value)
	}
	if err != nil {
		c.log.Error("other hosts are not told of this one", "error", err)
	}
}

// setPeers tells the fabric of the hosts.
func (c *Cluster) setPeers(hosts []table.HostView) {
	c.mu.Lock()
	f, own := c.mu.fabric, c.mu.id.ID
	c.mu.Unlock()
	var peers []fabric.Peer
	for _, h := range hosts {
		if h.ID == own {
			continue
		}
		p := fabric.Peer{Host: h.ID, Addrs: h.Addrs, Key: h.Key}
		for _, o := range hosts {
			if a, is := o.Seen[h.ID]; is && o.ID != own {
				p.Seen = append(p.Seen, a)
			}
		}
		peers = append(peers, p)
	}
	if err := f.SetPeers(peers); err != nil {
		c.log.Warn("other hosts are not reached", "error", err)
	}
}

// keyRefused is told by the fabric of a host whose key does not count. Whoever may write to the store could else take a
// host's place in sealed networks.
func (c *Cluster) keyRefused(err error) {
	c.log.Error("the key of a host is refused; if that host was made anew: usernet cluster leave HOST", "error", err)
	var changed *seal.ChangedKeyError
	if errors.As(err, &changed) {
		c.mu.Lock()
		c.mu.refused[changed.Host] = true
		c.mu.Unlock()
		c.event("key-refused", map[string]string{"host": string(changed.Host)})
	}
}

func (c *Cluster) event(action string, attributes map[string]string) {
	if c.cfg.Event != nil {
		c.cfg.Event(action, attributes)
	}
}

// spread is a number that differs among hosts, to begin with in a list of n.
func (c *Cluster) spread(network string, n uint64) uint64 {
	if !c.cfg.Scattered || n == 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(string(c.Identity().ID) + network))
	var x uint64
	for _, b := range sum[:8] {
		x = x<<8 | uint64(b)
	}
	return x % n
}
