package flannel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/kv"
)

// DefaultTTL is for how long a lease outlives its node (flannel: subnetTTL).
const DefaultTTL = 24 * time.Hour

// MinTTL is the shortest that makes sense: etcd may need seconds for an election, in which no lease is renewed.
const MinTTL = 10 * time.Second

const (
	// callTimeout bounds one call of the store.
	callTimeout = 3 * time.Second
	// After an error the next try comes after retryFirst, then after twice as long each time, up to retryMost.
	retryFirst, retryMost = time.Second, 15 * time.Second
	// lookAround is how often this host's own address is looked at.
	lookAround = 30 * time.Second
	// saveEvery is how often the state is written at most, while other nodes come and go.
	saveEvery = time.Second
	// maxNodes is how many leases are known; more are left out, and said.
	maxNodes = 4096
)

// Options says how this host is a node. Dir and Open have to be given.
type Options struct {
	Dir string // has the state; made with mode 0700
	// Open opens the store, with flannel's prefix. The node closes it.
	Open func() (kv.Store, error)
	URL  string // of the store, for people
	// Advertise is where other nodes reach this one, and Towards are addresses (HOST:PORT) that lead to them.
	Advertise cluster.Advertised
	Towards   []string
	TTL       time.Duration // of the lease; 0: DefaultTTL
	Logger    *slog.Logger  // nil: slog.Default
}

// Node is this host in a flannel network. Make it with Open, end it with Close. Its methods may be called at the same
// time.
type Node struct {
	opts   Options
	log    *slog.Logger
	store  kv.Store
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  sync.WaitGroup
	woken  chan struct{} // the lease is to be looked at
	dirty  chan struct{} // the state is to be saved

	mu struct {
		sync.Mutex
		mac     overlay.MAC
		text    []byte // the configuration that counts, as it is in the store
		config  Config // invalid without text
		own     lease  // that this host has or had; its subnet is invalid without one
		held    bool   // own is in the store, and renewed
		listed  bool   // leases is what the store has, or had when it was reached last
		leases  map[string]lease
		member  *member // the network that runs; nil: none
		changed chan struct{}
		// Why something is not as it should be; nil: it is.
		storeErr, configErr, leaseErr error
	}
}

// Open reads what the node knew, opens the store, and begins to follow it and to hold a lease.
func Open(opts Options) (*Node, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.TTL == 0 {
		opts.TTL = DefaultTTL
	}
	s, err := loadState(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("flannel: %w", err)
	}
	n := &Node{opts: opts, log: opts.Logger, woken: make(chan struct{}, 1), dirty: make(chan struct{}, 1)}
	n.mu.leases, n.mu.changed = map[string]lease{}, make(chan struct{})
	n.recall(s)
	if n.store, err = opts.Open(); err != nil {
		return nil, fmt.Errorf("flannel: %w", err)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.ended.Go(n.follow)
	n.ended.Go(n.hold)
	n.ended.Go(n.save)
	return n, nil
}

// recall takes what was known before.
func (n *Node) recall(s state) {
	n.mu.mac = s.MAC
	config, err := parseConfig(s.Config)
	if err != nil {
		return // the first start, or the store's was one that this version does not take
	}
	n.mu.text, n.mu.config = s.Config, config
	if config.fits(s.Subnet) && s.Public.Is4() {
		n.mu.own = n.mine(s.Subnet, s.Public)
	}
	for _, o := range s.Nodes {
		n.mu.leases[subnetKey(o.Subnet)] = lease{
			subnet: o.Subnet, public: o.Public, backend: config.Backend, vni: config.VNI, mac: o.MAC,
		}
	}
}

// mine is this host's lease of a subnet. The caller holds mu, or nobody else has n yet.
func (n *Node) mine(subnet netip.Prefix, public netip.Addr) lease {
	l := lease{subnet: subnet, public: public, backend: n.mu.config.Backend}
	if l.backend == backendVXLAN {
		l.vni, l.mac = n.mu.config.VNI, n.mu.mac
	}
	return l
}

// Close ends the node's life. The lease stays, so that the node finds it again.
func (n *Node) Close() error {
	n.cancel()
	n.ended.Wait()
	return errors.Join(n.snapshot().save(n.opts.Dir), n.store.Close())
}

// save writes the state when it has changed.
func (n *Node) save() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.dirty:
		}
		if err := n.snapshot().save(n.opts.Dir); err != nil {
			n.log.Warn("flannel's state is not saved", "error", err)
		}
		kv.Sleep(n.ctx, saveEvery)
	}
}

// snapshot is the state now.
func (n *Node) snapshot() state {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := state{MAC: n.mu.mac, Config: bytes.Clone(n.mu.text), Subnet: n.mu.own.subnet, Public: n.mu.own.public}
	for _, l := range n.others() {
		s.Nodes = append(s.Nodes, stateNode{Subnet: l.subnet, Public: l.public, MAC: l.mac})
	}
	return s
}

// Lease returns the network's configuration and this host's subnet. Where there is none yet it waits until ctx is done,
// and then says why; it does not wait for another configuration.
func (n *Node) Lease(ctx context.Context) (Config, netip.Prefix, error) {
	for {
		n.mu.Lock()
		config, subnet, changed, refused := n.mu.config, n.mu.own.subnet, n.mu.changed, n.mu.configErr
		err := errors.Join(refused, n.mu.storeErr, n.mu.leaseErr)
		n.mu.Unlock()
		if subnet.IsValid() {
			return config, subnet, nil
		}
		if refused == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
			}
		}
		if err == nil {
			err = errors.New("the store has not answered yet")
		}
		return Config{}, netip.Prefix{}, n.noLease(err)
	}
}

func (n *Node) noLease(err error) error {
	return fmt.Errorf("this host gets no lease of flannel's from %s: %w", n.opts.URL, err)
}

// LeaseNow is Lease for a network that is about to be made: the configuration has to be one that this host can take
// part in as it is in the store now. Where the store does not answer, the one that is known counts.
func (n *Node) LeaseNow(ctx context.Context) (Config, netip.Prefix, error) {
	for {
		answered, err := n.lookAtConfig(ctx)
		if err != nil {
			return Config{}, netip.Prefix{}, n.noLease(err)
		}
		config, subnet, err := n.Lease(ctx)
		if err == nil || !answered || ctx.Err() != nil {
			return config, subnet, err
		}
		// The configuration is refused although it was not just now: it has changed, or what follows the store was
		// late with an older one.
	}
}

// lookAtConfig takes the configuration that is in the store now, and says whether the store answered. An error says why
// the configuration is not used.
func (n *Node) lookAtConfig(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pair, err := n.store.Get(ctx, configKey)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		n.takeConfig(pair.Value)
	case errors.Is(err, kv.ErrNotFound):
		n.missConfig()
	default:
		return false, nil
	}
	n.tell()
	return true, n.mu.configErr
}

// tell wakes who waits for a change, and has the state saved. The caller holds mu.
func (n *Node) tell() {
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
	signal(n.dirty)
}

// signal wakes the reader of a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
