package libnetwork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

const (
	// callTimeout bounds one call to the store.
	callTimeout = 3 * time.Second
	// syncTimeout bounds all calls of one round of the worker.
	syncTimeout = 30 * time.Second
	// beatEvery and beatTTL are how often a host says that it is there, and for how long that counts (pkg/discovery of
	// Docker 20.10).
	beatEvery, beatTTL = 20 * time.Second, 60 * time.Second
	// syncPause is between two rounds, so that what changes often is read once.
	syncPause = 100 * time.Millisecond
	// retryAfter is when a round that failed is tried again.
	retryAfter = 2 * time.Second
	// vxlanPort is the UDP port of Docker's overlay networks.
	vxlanPort = 4789
	// advertisedPort is that of dockerd's API, which Docker's examples advertise. Nobody connects to it.
	advertisedPort = 2376
)

// Config says how this host is among the others. Dir, Store and Addr have to be given.
type Config struct {
	Dir   string                // has what is remembered over the daemon's lives; made with mode 0700
	Store func() (Store, error) // opens the store
	// Addr is where the others reach this host: an IPv4 address of it.
	Addr netip.Addr
	// Port is advertised with the address; 0: dockerd's.
	Port   uint16
	Logger *slog.Logger
	// Changed is called with what became different, by a goroutine of the member. Nil: nobody is told.
	Changed func(table.Changes)
}

// Member is this host among Docker's. Make it with Open, end it with Close. Its methods may be called at the same time.
type Member struct {
	cfg    Config
	log    *slog.Logger
	store  Store
	fabric *fabric.Fabric
	gossip *gossip
	leases *leases
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  sync.WaitGroup
	woken  chan struct{} // has something: a round is due
	// published is what Changed was told of last; the worker's own.
	published *view
	// uncounted are changes of this host's endpoints that their networks' counts lack, by endpoint; the worker's own.
	uncounted map[string]uncounted

	mu struct {
		sync.Mutex
		view   *view                         // what the store had last; never changed
		own    map[string][]overlay.Endpoint // as SetContainer said, by container
		joined map[string]*joined            // by network id
		told   map[string]told               // endpoints that the others were told of in this life, by id
		failed string                        // what the last round failed with; "": it did not
		beat   time.Time                     // the last one
		// leftOut is why records do not count, by key.
		leftOut map[string]string
	}
}

// told is an endpoint of this host as it was told of last.
type told struct {
	endpoint overlay.Endpoint
	bits     int // of the subnet
}

// Open binds the sockets. Nothing is told to others before Start.
func Open(cfg Config) (*Member, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if !canBeHost(cfg.Addr) {
		return nil, fmt.Errorf("networks of Docker's hosts: these reach each other by IPv4, and %v is no such address: "+
			"give one with --cluster-advertise", cfg.Addr)
	}
	m := &Member{cfg: cfg, log: cfg.Logger, woken: make(chan struct{}, 1), published: &view{},
		uncounted: map[string]uncounted{}}
	m.mu.view = &view{}
	m.mu.own, m.mu.joined, m.mu.told = map[string][]overlay.Endpoint{}, map[string]*joined{}, map[string]told{}
	if err := m.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("networks of Docker's hosts: %w", err), m.release())
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// open opens what the member needs, in turn.
func (m *Member) open() (err error) {
	if m.leases, err = openLeases(m.cfg.Dir); err != nil {
		return err
	}
	if m.store, err = m.cfg.Store(); err != nil {
		return err
	}
	m.fabric, err = fabric.New(fabric.Config{
		Host: hostOf(m.cfg.Addr), Listen: netip.AddrPortFrom(m.cfg.Addr, vxlanPort), Devices: true, Logger: m.log,
	})
	if err != nil {
		return fmt.Errorf("frames come in at UDP port %d, as at Docker's hosts: %w", vxlanPort, err)
	}
	m.gossip, err = newGossip(m.cfg.Addr, gossipPort, "usernet-"+m.leases.host, m.lookUp, m.log)
	return err
}

// release frees what open has opened.
func (m *Member) release() error {
	var errs []error
	if m.gossip != nil {
		errs = append(errs, m.gossip.close())
	}
	if m.fabric != nil {
		errs = append(errs, m.fabric.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// Start begins to follow the store. Containers that live on are to be told by SetContainer, and their addresses by
// Adopt, before; what the store has of this host's endpoints otherwise is taken back.
func (m *Member) Start() {
	m.leases.abandon()
	m.ended.Go(func() { m.store.Watch(m.ctx, keyDocker, m.wake) })
	m.ended.Go(m.work)
}

// Close ends the membership of this life. The others go on to send to this host's endpoints.
func (m *Member) Close() error {
	m.cancel()
	m.ended.Wait()
	return m.release()
}

// wake has a round begin.
func (m *Member) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// work makes rounds until the member is closed.
func (m *Member) work() {
	for m.ctx.Err() == nil {
		var err error
		if !isolate.Do(m.log, "following Docker's networks", func() { err = m.sync() }) {
			err = errors.New("a fault ended the round")
		}
		m.note(err)
		wait := beatEvery
		if err != nil {
			wait = retryAfter
		}
		timer := time.NewTimer(wait)
		select {
		case <-m.ctx.Done():
		case <-m.woken:
			kv.Sleep(m.ctx, syncPause)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// note logs an error of a round when it is another one than the last time.
func (m *Member) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	m.mu.Lock()
	was := m.mu.failed
	m.mu.failed = text
	m.mu.Unlock()
	switch {
	case m.ctx.Err() != nil || (was == "") == (text == ""):
	case err != nil:
		m.log.Warn("the store of Docker's networks cannot be used; what is known of them stays", "error", err)
	default:
		m.log.Info("the store of Docker's networks is there again")
	}
}

// sync is one round.
func (m *Member) sync() error {
	ctx, cancel := within(m.ctx, syncTimeout)
	defer cancel()
	if err := m.beat(ctx); err != nil {
		return err
	}
	v, err := m.read(ctx)
	if err != nil {
		return err
	}
	wrote, err := m.reconcile(ctx, v)
	if err == nil && wrote {
		v, err = m.read(ctx)
	}
	if err != nil {
		return err
	}
	m.publish(v)
	m.gossip.meet(v.hosts)
	m.tellOthers(v)
	return m.giveBack(ctx)
}

// beat says that this host is there.
func (m *Member) beat(ctx context.Context) error {
	m.mu.Lock()
	due := time.Since(m.mu.beat) >= beatEvery
	m.mu.Unlock()
	if !due {
		return nil
	}
	port := m.cfg.Port
	if port == 0 {
		port = advertisedPort
	}
	name := netip.AddrPortFrom(m.cfg.Addr, port).String()
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	if err := m.store.Beat(ctx, join(keyNodes, name), name, beatTTL); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.beat = time.Now()
	return nil
}

// publish makes what was read what is known, and tells what became different.
func (m *Member) publish(v *view) {
	m.mu.Lock()
	m.mu.view = v
	m.mu.Unlock()
	c := v.since(m.published)
	m.published = v
	if err := m.fabric.SetPeers(v.peers()); err != nil {
		m.log.Error("other hosts are not reached", "error", err)
	}
	for id := range m.joinedNetworks() {
		m.setEntries(id)
	}
	if m.cfg.Changed != nil && (len(c.Networks) > 0 || len(c.Endpoints) > 0 || c.Synced) {
		m.cfg.Changed(c)
	}
}

// known is what the store had last.
func (m *Member) known() *view {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.view
}
