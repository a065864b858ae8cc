package forwarder

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/internal/budget"
	"github.com/usernet/usernet/internal/hostaddr"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/watchdog"
)

// Shared is what the forwarders of one daemon have in common: the host's ports, the sockets that the daemon was started with,
// its knowledge of the host's addresses, those who watch sockets, and the limits on the whole.
type Shared struct {
	limits Limits
	use    [usageKinds]atomic.Int64
	// descriptors and memory are divided among containers (budgets.go).
	descriptors, memory *budget.Budget

	host     *hostaddr.Set // the machine's own addresses
	networks ownNetworks

	pipes     *relay.Pipes        // of all flows that splice
	keepAlive net.KeepAliveConfig // of the host's ends of TCP connections; set before the first forwarder

	mu        sync.Mutex
	ports     map[portKey]*published
	inherited map[portKey]int         // descriptors, which stay open
	adopted   map[adoptedKey]int      // descriptors of a daemon whose place this one takes
	fdStore   handover.Sink           // stores copies of sockets of published ports; nil: nothing does
	reactors  map[*sockio.Reactor]int // how many forwarders use each
}

// portKey is a host port: its address may be unspecified.
type portKey struct {
	host  netip.AddrPort
	proto string
	ifc   string // the interface that it is limited to; "": none
}

// DefaultPeerTimeout is how long a connection may wait for a peer that is gone: programs whose own keepalive finds out in
// seconds are behind the host's socket, which has to find out for them. An idle connection whose peer lives is kept for ever
// (RFC 5382 REQ-5 asks for 2 h 4 min at least).
const DefaultPeerTimeout = 30 * time.Second

// NewShared makes what forwarders share. total is on the daemon as a whole, perContainer on a container on all of its
// networks, as far as Memory goes; what is 0 does not limit. It is ended with Close.
func NewShared(total, perContainer Limits) *Shared {
	return &Shared{
		limits:      total,
		descriptors: newDescriptors(),
		memory:      budget.New(perContainer.Memory, total.Memory),
		host:        hostaddr.Watch(),
		pipes:       relay.NewPipes(maxIdlePipes, pipeFits),
		keepAlive:   sockio.KeepAlive(DefaultPeerTimeout),
		ports:       map[portKey]*published{},
		inherited:   map[portKey]int{},
		adopted:     map[adoptedKey]int{},
		reactors:    map[*sockio.Reactor]int{},
	}
}

// SetPeerTimeout says how long a connection may wait for a peer outside that is gone; 0: as long as the kernel has it, which is
// hours. It is called before the first forwarder is made.
func (s *Shared) SetPeerTimeout(d time.Duration) { s.keepAlive = sockio.KeepAlive(d) }

// SetNetworks says which networks the daemon has, whether they have a forwarder or not: list returns their subnets, of which
// the addresses are the gateways'. Of several calls at once the last one's list is the one that counts.
func (s *Shared) SetNetworks(list func() []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.networks.set(list())
}

// OwnsAddr says whether an address is the machine\'s.
func (s *Shared) OwnsAddr(a netip.Addr) bool { return s.host.Has(a) }

// maxReactors is how many networks have a reactor of their own, so that one which hangs is one network's. Each waits in a
// thread: some 20 KiB with its stacks. Networks beyond that share them.
const maxReactors = 64

// takeReactor returns the reactor of another forwarder: one that no other uses, or else the one with the fewest users.
func (s *Shared) takeReactor() (*sockio.Reactor, error) {
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

// giveReactor is the end of a forwarder's use. The reactor stays for the next one.
func (s *Shared) giveReactor(r *sockio.Reactor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.reactors[r]; ok {
		s.reactors[r]--
	}
}

// Locks are what has to be watched for hanging.
func (s *Shared) Locks() []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("host ports", &s.mu, 0)}
}

// Inherit keeps a bound socket that the daemon was started with (systemd's socket activation, sd_listen_fds(3)) for the
// published port that asks for its address; the way to have a port that this user may not bind. It owns fd from here, also
// when it fails.
func (s *Shared) Inherit(fd int) (at netip.AddrPort, proto string, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return netip.AddrPort{}, "", fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	at, proto = sockio.LocalAddr(fd), "tcp"
	if kind == unix.SOCK_DGRAM {
		proto = "udp"
	}
	if !at.IsValid() || at.Port() == 0 || kind != unix.SOCK_DGRAM && kind != unix.SOCK_STREAM {
		return at, proto, fmt.Errorf("descriptor %d is not a bound TCP or UDP socket", fd)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return at, proto, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.inherited[portKey{host: at, proto: proto}]; twice {
		return at, proto, fmt.Errorf("two sockets for %s were inherited", at)
	}
	s.inherited[portKey{host: at, proto: proto}] = fd
	if at.Addr() == netip.IPv6Unspecified() && sockio.IsDual(fd) {
		s.inherited[portKey{host: netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), proto: proto}] = fd
	}
	return at, proto, nil
}

// inherits says whether a socket was inherited for a port.
func (s *Shared) inherits(host netip.Addr, port uint16, proto string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.inherited[portKey{host: netip.AddrPortFrom(host, port), proto: proto}]
	return ok
}

// listen binds a host port, or takes the socket that was inherited for it.
func (s *Shared) listen(k portKey, o sockio.ListenOptions) (int, error) {
	if fd, ok := s.takeAdopted(k, o.Dual); ok {
		return fd, nil
	}
	s.mu.Lock()
	fd, ok := s.inherited[k]
	_, taken := s.ports[k]
	s.mu.Unlock()
	switch {
	case ok && taken:
		return -1, unix.EADDRINUSE
	case ok:
		return sockio.DupFD(fd)
	case k.proto == "udp":
		return sockio.ListenUDP(k.host, o)
	}
	return sockio.ListenTCP(k.host, o)
}

// port finds a published port.
func (s *Shared) port(k portKey) *published {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[k]
}

func (s *Shared) put(p *published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range p.bounds() {
		s.ports[b.key()] = p
	}
}

func (s *Shared) drop(p *published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range p.bounds() {
		if k := b.key(); s.ports[k] == p {
			delete(s.ports, k)
		}
	}
}

// published says whether some container has a port at all of the host's addresses of a family: those that the gateway's
// address stands for. proto is that of the IP header.
func (s *Shared) published(host netip.AddrPort, protocol uint8) bool {
	proto := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	any := netip.IPv4Unspecified()
	if host.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ports[portKey{host: netip.AddrPortFrom(any, host.Port()), proto: proto}]
	return ok
}

// Close closes the inherited sockets and ends what watches others. The forwarders are closed before.
func (s *Shared) Close() error {
	s.DropAdopted()
	s.mu.Lock()
	reactors := s.reactors
	s.reactors = nil
	s.mu.Unlock()
	for r := range reactors {
		r.Close()
	}
	s.pipes.Close()
	errs := []error{s.host.Close()}
	s.mu.Lock()
	defer s.mu.Unlock()
	closed := map[int]bool{}
	for _, fd := range s.inherited {
		if !closed[fd] {
			closed[fd] = true
			errs = append(errs, unix.Close(fd))
		}
	}
	clear(s.inherited)
	return errors.Join(errs...)
}
