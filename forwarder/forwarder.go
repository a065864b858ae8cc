package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/stack"
)

// Inside is the network's gateway.
type Inside interface {
	DialTCP(ctx context.Context, src, dst netip.AddrPort) (*stack.Conn, error)
	WriteUDP(src, dst netip.AddrPort, payload []byte) error
	WriteICMP(src, dst netip.Addr, message []byte) error
	Owns(a netip.Addr) bool
}

// Config says how to forward. Inside is needed; the zero value of the rest works.
type Config struct {
	Network            string
	Inside             Inside
	Logger             *slog.Logger
	Gateway4, Gateway6 netip.Addr
	Internal           bool // nothing goes out
	OutboundAddr4      netip.Addr
	OutboundAddr6      netip.Addr
	HostLoopback       func(container netip.Addr) bool
	Owner              func(netip.Addr) string
	Limits             Limits
}

// Limits bound what one container may have at once.
type Limits struct {
	Dialling int // connections being set up
	TCP      int // connections
	UDP      int // associations
	Echo     int // identifiers being pinged with
}

// DefaultLimits serve a busy container and leave room for others.
var DefaultLimits = Limits{Dialling: 1024, TCP: 16384, UDP: 4096, Echo: 64}

// Forwarder forwards for one network.
type Forwarder struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	flows    map[*flow]struct{}
	use      map[netip.Addr]*usage
	udp      map[netip.AddrPort]*association
	echo     map[echoKey]*pinger
	ports    map[portKey]*published
	closed   bool
	counters [counterKinds]atomic.Uint64
}

// usage is what one container has at once.
type usage struct{ dialling, tcp, udp, echo int }

type counter int

const (
	countTCP counter = iota
	countTCPRefused
	countTCPLimit
	countUDP
	countUDPLimit
	countEcho
	countEchoLimit
	countInbound
	counterKinds
)

var counterNames = [counterKinds]string{"tcp_connections", "tcp_refused", "tcp_limit", "udp_associations", "udp_limit", "ping_sessions", "ping_limit", "published_connections"}

// New makes a forwarder.
func New(cfg Config) *Forwarder {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits
	}
	if cfg.HostLoopback == nil {
		cfg.HostLoopback = func(netip.Addr) bool { return false }
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Forwarder{
		cfg: cfg, ctx: ctx, cancel: cancel,
		flows: map[*flow]struct{}{}, use: map[netip.Addr]*usage{}, udp: map[netip.AddrPort]*association{},
		echo: map[echoKey]*pinger{}, ports: map[portKey]*published{},
	}
}

var _ stack.Handler = (*Forwarder)(nil)

// Close ends all flows and published ports and waits for them.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	f.closed = true
	var ends []func()
	for fl := range f.flows {
		ends = append(ends, fl.abort)
	}
	for _, a := range f.udp {
		ends = append(ends, a.close)
	}
	for _, p := range f.echo {
		ends = append(ends, p.close)
	}
	for _, p := range f.ports {
		ends = append(ends, p.close)
	}
	f.mu.Unlock()
	f.cancel()
	for _, end := range ends {
		end()
	}
	f.wg.Wait()
	return nil
}

// DropContainer ends the flows of the container at addr.
func (f *Forwarder) DropContainer(addr netip.Addr) {
	f.mu.Lock()
	var ends []func()
	for fl := range f.flows {
		if fl.inside.Addr() == addr {
			ends = append(ends, fl.abort)
		}
	}
	for k, a := range f.udp {
		if k.Addr() == addr {
			ends = append(ends, a.close)
		}
	}
	for k, p := range f.echo {
		if k.src == addr {
			ends = append(ends, p.close)
		}
	}
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// errUnreachable says that policy keeps a destination from a container.
var errUnreachable = errors.New("network is unreachable")

// hostTarget decides where on the host a container's destination is: itself, or for the gateway's own address the host's
// loopback, where that is allowed.
func (f *Forwarder) hostTarget(src netip.Addr, dst netip.AddrPort) (netip.AddrPort, error) {
	a := dst.Addr()
	switch {
	case f.cfg.Internal:
		return dst, errUnreachable
	case f.cfg.Inside.Owns(a):
		if !f.cfg.HostLoopback(src) {
			return dst, errUnreachable
		}
		if a.Is4() {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port()), nil
		}
		return netip.AddrPortFrom(netip.IPv6Loopback(), dst.Port()), nil
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast():
		return dst, errUnreachable
	}
	return dst, nil
}

// take counts one more use of a kind for a container, unless that passes the limit.
func (f *Forwarder) take(src netip.Addr, of func(*usage) *int, limit int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.use[src]
	if u == nil {
		u = &usage{}
		f.use[src] = u
	}
	if n := of(u); *n < limit && !f.closed {
		*n++
		return true
	}
	return false
}

func (f *Forwarder) give(src netip.Addr, of func(*usage) *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.use[src]; u != nil {
		*of(u)--
		if *u == (usage{}) {
			delete(f.use, src)
		}
	}
}

// Counters returns what was counted since the start.
func (f *Forwarder) Counters() map[string]uint64 {
	m := map[string]uint64{}
	for i := range f.counters {
		m[counterNames[i]] = f.counters[i].Load()
	}
	return m
}

// Flow is one live connection or association.
type Flow struct {
	Proto, Direction, State   string
	Inside, Outside, HostSide netip.AddrPort
	BytesIn, BytesOut         uint64
	PacketsIn, PacketsOut     uint64
	Created                   time.Time
}

// PingAvailable says whether this process may open ping sockets.
func PingAvailable() (v4, v6 bool) {
	try := func(family, proto int) bool {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err == nil
	}
	return try(unix.AF_INET, unix.IPPROTO_ICMP), try(unix.AF_INET6, unix.IPPROTO_ICMPV6)
}

// RaiseFileLimit raises the soft limit on open files to the hard one.
func RaiseFileLimit() error {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return err
	}
	r.Cur = r.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
}
