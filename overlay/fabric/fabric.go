package fabric

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/hostconn"
	"github.com/usernet/usernet/overlay/seal"
)

// Bounds: what other hosts say makes no table grow beyond these.
const (
	maxPeers     = 4096
	maxAddrs     = 8       // of one peer
	maxEntries   = 1 << 17 // of one network
	maxForeign   = 256     // foreign peers of one network
	maxLearned   = 4096    // MACs behind the foreign peers of one network
	maxNetworks  = 4096
	defaultIPMTU = 1500 // of a path that nothing is known of yet
)

// Config says who this host is. The zero value of each field but Host works.
type Config struct {
	Host overlay.HostID
	// Listen is where datagrams come in: port 0 is any free one, an unspecified or zero address means both families.
	Listen netip.AddrPort
	// Encap is how frames are carried. Hosts of a cluster need VXLAN.
	Encap Encap
	// Key is this host's; zero: it takes part in no sealed network.
	Key seal.PrivateKey
	// Devices says that the other hosts are VXLAN devices of others, as Docker's are: they send from any port
	// (RFC 7348, section 5), and answer no probes. There is no Key then.
	Devices bool
	// Pins has the keys that hosts had when they were first seen; nil: they are remembered for the fabric's life.
	Pins *seal.Pins
	// Refused is told of a host whose key does not count: it has changed, or cannot be remembered. It is called with a
	// lock held, and must not call the fabric. Nil: it is logged.
	Refused func(error)
	// Told is called with what another host has told (Tell), which is valid until it returns. It must neither wait nor
	// call the fabric. Nil: nobody listens.
	Told func(from overlay.HostID, message []byte)
	// Clock is the time of day that other hosts are told (PeerState.Ahead); nil: time.Now. Nothing depends on it.
	Clock  func() time.Time
	Logger *slog.Logger // nil: slog.Default
}

// Fabric is this host's part of all networks that span hosts. Make it with New, end it with Close. Its methods may be
// called by many goroutines at once.
type Fabric struct {
	cfg     Config
	log     *slog.Logger
	sockets []*socket                   // one of each family at most; they never change
	tunnel  atomic.Pointer[seal.Tunnel] // nil without a key
	closed  atomic.Bool
	workers sync.WaitGroup // that receive, and that look after peers
	stop    chan struct{}
	woken   chan struct{}       // watch has something to do
	relayed chan relayedMessage // from relays, for WireGuard
	// carriers are TCP connections; there are none without a key.
	carriers  carriers
	hostconns *hostconn.Host            // connections of containers; nil without a key
	drops     [numReasons]atomic.Uint64 // of what belongs to no network

	flushList  flushList
	delivering sync.RWMutex // read-locked while frames go into switches; Link.Stop waits for it

	mu      sync.Mutex // guards changes of state, hosts and refused
	hosts   map[overlay.HostID]*peer
	refused map[string]bool // what Refused was told
	state   atomic.Pointer[state]
}

// state is what the paths of frames look up. It never changes once it is stored.
type state struct {
	byVNI  map[uint32]*Link
	byAddr map[netip.AddrPort]*peer // hosts of the cluster, by all their addresses
	byIP   map[netip.Addr]*peer     // foreign peers: VXLAN devices send from any port (RFC 7348, section 5)
	byVTEP map[netip.Addr]*peer     // hosts that are VXLAN devices of others, by their addresses
	byHost map[overlay.HostID]*peer // hosts of the cluster
	bySeal map[netip.Addr]*peer     // hosts whose keys count, by their addresses inside the tunnel

	endpoints map[netip.AddrPort]*addrEndpoint // of all addresses of hosts
	ofHosts   map[netip.Addr]bool              // addresses that hosts have
}

// ErrClosed is returned by what is done to a closed fabric or link.
var ErrClosed = fmt.Errorf("fabric: %w", net.ErrClosed)

// New opens the sockets and starts to receive.
func New(cfg Config) (*Fabric, error) {
	if _, err := overlay.ParseHostID(string(cfg.Host)); err != nil {
		return nil, fmt.Errorf("fabric: %w", err)
	}
	if cfg.Encap != VXLAN && cfg.Key != (seal.PrivateKey{}) {
		return nil, fmt.Errorf("fabric: %v is not for hosts of a cluster", cfg.Encap)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Refused == nil {
		cfg.Refused = func(err error) { cfg.Logger.Warn("a host's key is refused", "error", err) }
	}
	if cfg.Pins == nil {
		cfg.Pins, _ = seal.LoadPins("") // it has no error
	}
	f := &Fabric{
		cfg:     cfg,
		log:     cfg.Logger,
		hosts:   map[overlay.HostID]*peer{},
		refused: map[string]bool{},
		stop:    make(chan struct{}),
		woken:   make(chan struct{}, 1),
		relayed: make(chan relayedMessage, relayQueue),
	}
	f.state.Store(&state{})
	f.carriers.init()
	var err error
	if f.sockets, err = listen(cfg.Listen); err != nil {
		return nil, fmt.Errorf("fabric: %w", err) // which says where
	}
	if err := f.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("fabric: %w", err), f.Close())
	}
	return f, nil
}

// start has somebody receive: WireGuard where there is a key.
func (f *Fabric) start() error {
	f.workers.Go(f.watch)
	if f.cfg.Key == (seal.PrivateKey{}) {
		for _, s := range f.sockets {
			f.workers.Go(func() { _, _ = newReader(f, s).receive(nil, nil, nil) })
		}
		return nil
	}
	t, err := seal.New(seal.Config{Key: f.cfg.Key, Bind: bind{f}, Receive: f.opened, Logger: f.log})
	if err != nil {
		return err
	}
	f.tunnel.Store(t)
	f.hostconns, err = hostconn.New(hostconn.Config{Host: f.cfg.Host, Key: f.cfg.Key, KeyOf: f.keyOf})
	return errors.Join(err, f.listenTCP())
}

// PublicKey is the public part of this host's key; zero: it has none.
func (f *Fabric) PublicKey() overlay.Key {
	if f.cfg.Key == (seal.PrivateKey{}) {
		return overlay.Key{}
	}
	return f.cfg.Key.Public()
}

// Addrs are the addresses that the sockets are bound to, with their port.
func (f *Fabric) Addrs() []netip.AddrPort {
	list := make([]netip.AddrPort, 0, len(f.sockets))
	for _, s := range f.sockets {
		list = append(list, s.local)
	}
	return list
}

// Close ends all links and waits until nothing is received any more. Closing again does nothing.
func (f *Fabric) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	for _, l := range f.state.Load().byVNI {
		_ = l.Close() // it has no error
	}
	var errs []error
	for _, s := range f.sockets {
		errs = append(errs, s.conn.Close())
	}
	close(f.stop)
	f.closeCarriers()
	if t := f.tunnel.Load(); t != nil {
		t.Close() // it waits for its readers, which the sockets' end has woken
	}
	f.workers.Wait()
	return errors.Join(errs...)
}

// Drops are the counts of what was dropped before it belonged to a network, by reason.
func (f *Fabric) Drops() map[Reason]uint64 { return counts(&f.drops) }

func counts(drops *[numReasons]atomic.Uint64) map[Reason]uint64 {
	m := map[Reason]uint64{}
	for r := range drops {
		if n := drops[r].Load(); n > 0 {
			m[Reason(r)] = n
		}
	}
	return m
}

// change stores a new state that edit has made of a copy. The caller holds mu.
func (f *Fabric) change(edit func(*state)) {
	old := f.state.Load()
	next := *old
	edit(&next)
	f.state.Store(&next)
}

// socketFor is the socket that reaches an address; nil where there is none of its family.
func (f *Fabric) socketFor(a netip.Addr) *socket {
	for _, s := range f.sockets {
		if s.v6 == a.Is6() {
			return s
		}
	}
	return nil
}
