package fabric

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/overlay"
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
	Logger *slog.Logger // nil: slog.Default
}

// Fabric is this host's part of all networks that span hosts. Make it with New, end it with Close. Its methods may be called by
// many goroutines at once.
type Fabric struct {
	cfg     Config
	log     *slog.Logger
	sockets []*socket // one of each family at most; they never change
	closed  atomic.Bool
	readers sync.WaitGroup
	drops   [numReasons]atomic.Uint64 // of what belongs to no network

	flushList flushList

	mu    sync.Mutex // guards changes of state, and hosts
	hosts map[overlay.HostID]*peer
	state atomic.Pointer[state]
}

// state is what the paths of frames look up. It never changes once it is stored.
type state struct {
	byVNI  map[uint32]*Link
	byAddr map[netip.AddrPort]*peer // hosts of the cluster, by all their addresses
	byIP   map[netip.Addr]*peer     // foreign peers: VXLAN devices send from any port (RFC 7348, section 5)
}

// ErrClosed is returned by what is done to a closed fabric or link.
var ErrClosed = fmt.Errorf("fabric: %w", net.ErrClosed)

// New opens the sockets and starts to receive.
func New(cfg Config) (*Fabric, error) {
	if _, err := overlay.ParseHostID(string(cfg.Host)); err != nil {
		return nil, fmt.Errorf("fabric: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	f := &Fabric{cfg: cfg, log: cfg.Logger, hosts: map[overlay.HostID]*peer{}}
	f.state.Store(&state{})
	var err error
	if f.sockets, err = listen(cfg.Listen); err != nil {
		return nil, fmt.Errorf("fabric: listen on %v: %w", cfg.Listen, err)
	}
	for _, s := range f.sockets {
		f.readers.Go(func() { f.read(s) })
	}
	return f, nil
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
	f.readers.Wait()
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
