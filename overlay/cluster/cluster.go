package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/usernet/usernet/network/boltstore"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/seal"
	"github.com/usernet/usernet/overlay/table"
)

// DefaultPort is the UDP port of VXLAN (RFC 7348, section 5), taken where it is free.
const DefaultPort = 4789

// Config says how a host is a member. Dir and Backend have to be given.
type Config struct {
	Dir string // has the identity and the replica; made with mode 0700
	// Backend opens what spreads the records. The identity is this host's; addr is where others reach it. Where the
	// hosts themselves spread them (Scattered), paths lead to those that no socket reaches; else it is nil.
	Backend func(id Identity, addr netip.Addr, paths gossip.Paths) (table.Backend, error)
	// Release frees what the backends share, after the last one was closed. Nil: they share nothing.
	Release func() error
	// Scattered says that the backend has no single place that decides: hosts then begin to claim at different blocks,
	// so that they seldom claim the same.
	Scattered bool
	Advertise Advertised
	// AcceptRoutes are the subnets that other hosts may say are behind them.
	AcceptRoutes []AcceptedRoute
	// Towards are addresses (HOST:PORT) that lead to the other hosts, such as the store's.
	Towards []string
	Name    string // the machine's host name
	Version string
	Logger  *slog.Logger
	// Clock is the time of day; nil: time.Now. Tests have another.
	Clock func() time.Time
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
	heard   chan heard // what other hosts tell of themselves
	paths   atomic.Pointer[paths]
	// exposing is held while what this host exposes is changed.
	exposing sync.Mutex

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
		refused  map[overlay.HostID]bool
		seen     map[overlay.HostID]netip.AddrPort // addresses of others that they do not name
		reached  map[overlay.HostID]bool           // others that answer
		rates    map[overlay.HostID]*rate
		left     bool                 // Leave was called
		exposed  []netip.Prefix       // subnets that others reach through this host
		overlaps map[RouteStatus]bool // that were told of
	}
}

// Open reads who this host is and its replica, and opens the fabric's sockets. Nothing is told to others before Start.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	id, err := loadIdentity(cfg.Dir, cfg.Clock())
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{cfg: cfg, log: cfg.Logger, heard: make(chan heard, heardQueue)}
	if c.pins, err = seal.LoadPins(cfg.Dir); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.mu.id = id
	c.mu.own, c.mu.joined, c.mu.leases = map[string][]overlay.Endpoint{}, map[string]*joined{}, map[string]*leases{}
	c.mu.refused, c.mu.rates = map[overlay.HostID]bool{}, map[overlay.HostID]*rate{}
	if c.mu.exposed, err = loadExposed(cfg.Dir); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if c.replica, err = boltstore.Open(filepath.Join(cfg.Dir, "overlay.db")); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.release(), c.replica.Close())
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
	backend, err := c.openBackend(id, addrs[0], f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t, err := table.Open(table.Config{
		Host: id.ID, Incarnation: id.Incarnation, Store: c.replica, Backend: backend, Logger: c.log, Resurrect: c.inUse,
		Clock: c.cfg.Clock,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("cluster: %w", err), backend.Close(), f.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.id, c.mu.addrs, c.mu.table, c.mu.fabric = id, addrs, t, f
	return nil
}

// openBackend opens what spreads the records, which closes the paths that it is given.
func (c *Cluster) openBackend(id Identity, addr netip.Addr, f *fabric.Fabric) (table.Backend, error) {
	if !c.cfg.Scattered {
		return c.cfg.Backend(id, addr, nil)
	}
	p, err := c.openPaths(f)
	if err != nil {
		return nil, err
	}
	b, err := c.cfg.Backend(id, addr, p)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	c.paths.Store(p)
	return b, nil
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
			Told:    c.hear,
			Clock:   c.cfg.Clock,
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
	c.ended.Go(c.tellOthers)
	c.ended.Go(c.takeHeard)
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
	return errors.Join(err, f.Close(), c.release(), c.replica.Close())
}

// release frees what the backends shared.
func (c *Cluster) release() error {
	if c.cfg.Release == nil {
		return nil
	}
	return c.cfg.Release()
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
