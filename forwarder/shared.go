package forwarder

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/budget"
	"github.com/usernet/usernet/internal/hostaddr"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/watchdog"
)

// Shared is what the forwarders of one daemon have in common: the host's ports (the Table), its knowledge of the host's
// addresses, those who watch sockets, and the limits on the whole.
type Shared struct {
	*publish.Table

	limits Limits
	use    [usageKinds]atomic.Int64
	// descriptors and memory are divided among containers (limits.go).
	descriptors, memory *budget.Budget

	host     *hostaddr.Set // the machine's own addresses
	networks ownNetworks

	pipes     *relay.Pipes        // of all flows that splice
	keepAlive net.KeepAliveConfig // of the host's ends of TCP connections; set before the first forwarder

	mu       sync.Mutex              // guards reactors, and keeps calls of SetNetworks in order
	reactors map[*sockio.Reactor]int // how many forwarders use each
}

// DefaultPeerTimeout is how long a connection may wait for a peer that is gone: programs whose own keepalive finds out
// in seconds are behind the host's socket, which has to find out for them. An idle connection whose peer lives is kept
// for ever (RFC 5382 REQ-5 asks for 2 h 4 min at least).
const DefaultPeerTimeout = 30 * time.Second

// NewShared makes what forwarders share. total is on the daemon as a whole, perContainer on a container on all of its
// networks, as far as Memory goes; what is 0 does not limit. It is ended with Close.
func NewShared(total, perContainer Limits) *Shared {
	s := &Shared{
		Table:       publish.NewTable(),
		limits:      total,
		descriptors: newDescriptors(),
		memory:      budget.New(perContainer.Memory, total.Memory),
		host:        hostaddr.Watch(),
		pipes:       relay.NewPipes(maxIdlePipes, pipeFits),
		reactors:    map[*sockio.Reactor]int{},
	}
	s.SetPeerTimeout(DefaultPeerTimeout)
	return s
}

// SetPeerTimeout says how long a connection may wait for a peer outside that is gone; 0: as long as the kernel has it,
// which is hours. It is called before the first forwarder is made.
func (s *Shared) SetPeerTimeout(d time.Duration) {
	s.keepAlive = sockio.KeepAlive(d)
	s.Table.SetKeepAlive(s.keepAlive)
}

// SetNetworks says which networks the daemon has, whether they have a forwarder or not: list returns their subnets, of
// which the addresses are the gateways'. Of several calls at once the last one's list is the one that counts.
func (s *Shared) SetNetworks(list func() []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks.set(list())
}

// OwnsAddr says whether an address is the machine's.
func (s *Shared) OwnsAddr(a netip.Addr) bool { return s.host.Has(a) }

// IsInside says whether an address is of one of the networks, or the machine's own.
func (s *Shared) IsInside(a netip.Addr) bool { return s.networks.contain(a) || s.host.Has(a) }

// maxReactors is how many networks have a reactor of their own, so that one which hangs is one network's. Each waits in
// a thread: some 20 KiB with its stacks. Networks beyond that share them.
const maxReactors = 64

// acquireReactor returns the reactor of another forwarder: one that no other uses, or else the one with the fewest
// users.
func (s *Shared) acquireReactor() (*sockio.Reactor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var least *sockio.Reactor
	for r, users := range s.reactors {
		if least == nil || users < s.reactors[least] {
			least = r
		}
	}
	if least == nil || s.reactors[least] > 0 && len(s.reactors) < maxReactors {
		r, err := sockio.NewReactor()
		if err != nil {
			return nil, err
		}
		least = r
	}
	s.reactors[least]++
	return least, nil
}

// releaseReactor is the end of a forwarder's use. The reactor stays for the next one.
func (s *Shared) releaseReactor(r *sockio.Reactor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.reactors[r]; ok {
		s.reactors[r]--
	}
}

// Locks are what has to be watched for hanging.
func (s *Shared) Locks() []watchdog.Lock {
	return append(s.Table.Locks(), watchdog.Mutex("reactors", &s.mu, 0))
}

// Close closes the sockets that were passed for ports and ends what watches others. The forwarders are closed before.
func (s *Shared) Close() error {
	s.mu.Lock()
	reactors := s.reactors
	s.reactors = nil
	s.mu.Unlock()
	for r := range reactors {
		r.Close()
	}
	s.pipes.Close()
	return errors.Join(s.host.Close(), s.Table.Close())
}
