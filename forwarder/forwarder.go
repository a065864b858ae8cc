package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/mapping"
	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/openmetrics"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/internal/watchdog"
)

// Config says how to forward. Inside is needed; the zero value of the rest works.
type Config struct {
	Inside             Gateway
	Shared             *Shared // nil: not shared
	Logger             *slog.Logger
	Gateway4, Gateway6 netip.Addr
	Internal           bool       // nothing goes out
	HideClients        bool       // clients of published ports come from the gateway's address
	OutboundAddr4      netip.Addr // the source of connections to the outside; zero: the kernel's choice
	OutboundAddr6      netip.Addr
	OutboundInterface4 string // the interface that they leave by; empty: the routing table's choice
	OutboundInterface6 string
	// OutboundLoopback has those to the host's loopback come from OutboundAddr4 and 6 as well.
	OutboundLoopback bool
	// HostLoopback says whether the container at an address may reach the host's loopback.
	HostLoopback func(container netip.Addr) bool
	// Translate returns where on the host an address leads that containers use; an invalid one: what all else says. It
	// comes before everything but Internal. Nil: it is not asked.
	Translate func(dst netip.Addr) netip.Addr
	// Refuse returns why nobody reaches an address, for containers to see: ErrUnreachable, or ErrNoAnswer. It comes
	// before everything. Nil: it is not asked.
	Refuse func(dst netip.Addr) error
	// Allow refuses destinations of a container by returning an error; nil allows all. proto is that of the IP header.
	Allow func(container netip.Addr, proto uint8, dst netip.AddrPort) error
	// Refused is told of what was refused, and why: an error of Allow is in why. It is called for each packet. Nil:
	// nobody is.
	Refused func(container netip.Addr, proto uint8, dst netip.AddrPort, why error)
	// Owner names the container at an address: what is divided among containers is so by this name. "": by address.
	Owner func(netip.Addr) string
	// Socket returns an unconnected, non-blocking socket for a connection past the gateway: one of the network
	// namespace of the container at an address, that can be bound to any address (ip(7), IP_TRANSPARENT) and is reset
	// if it is just closed. With outbound set it answers a connection to outside that the container asks for; else it
	// is for one from there. An error means: through the gateway. Nil: always so.
	Socket func(ctx context.Context, container netip.Addr, outside netip.AddrPort, outbound bool) (fd int, err error)
	// ToLoopback has the connections of the host's loopback to published TCP ports lead to the loopback of the
	// container's namespace, by Socket, which is asked for it with the loopback's address.
	ToLoopback bool
	// LoopbackDatagrams, where it is not nil, does so for published UDP ports: it returns an unconnected, non-blocking
	// UDP socket of the container's namespace, without waiting for one.
	LoopbackDatagrams func(ipv6 bool) (fd int, err error)
	// BypassOutcome is told whether a container took part in a connection over such a socket with outbound set; nothing
	// where there was another error.
	BypassOutcome func(container netip.Addr, outside netip.AddrPort, answered bool)
	Limits        Limits // for each container

	connect func(fd int) error // instead of connecting directly, where tests have no namespace
}

// ErrNoBypass says that a connection has to go through the gateway.
var ErrNoBypass = errors.New("no socket of the container's namespace")

// Forwarder forwards for one network.
type Forwarder struct {
	cfg        Config
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup  // flows that are relayed
	reactor    *sockio.Reactor // of cfg.Shared
	loop       *relay.Loop     // of the same reactor
	publisher  *publish.Publisher
	ownsShared bool // cfg.Shared is this forwarder's own

	toFlush flushList

	udp     *mapping.Table[netip.AddrPort, *association]
	inbound *mapping.Table[inboundKey, *inboundUDP]
	echo    *mapping.Table[echoKey, *pinger]
	clients clients // those of inbound, by what the host knows of them

	mu       sync.Mutex // guards what follows
	flows    flowTable
	ends     map[flowKey][]*flow // flows, by the two that they are between
	use      map[netip.Addr]usage
	closed   bool
	detached bool // to another process

	counters [counterKinds]atomic.Uint64
	dials    [dialResults]openmetrics.Histogram
}

type counter int

const (
	countTCP counter = iota
	countTCPRefused
	countTCPLimit
	countDialLimit
	countUDP
	countUDPLimit
	countUDPLost
	countClientsLimit
	countPublishedLost
	countEcho
	countEchoLimit
	countInbound
	countBypassInbound
	countBypassOutbound
	countPeersInbound
	countPeersOutbound
	countProhibited
	countDescriptorLimit
	countMemoryLimit
	counterKinds
)

var counterNames = [counterKinds]string{
	countTCP:             "tcp_connections",
	countTCPRefused:      "tcp_refused",
	countTCPLimit:        "tcp_limit",
	countDialLimit:       "tcp_dial_limit",
	countUDP:             "udp_associations",
	countUDPLimit:        "udp_limit",
	countUDPLost:         "udp_lost",
	countClientsLimit:    "published_udp_limit",
	countPublishedLost:   "published_udp_lost",
	countEcho:            "ping_sessions",
	countEchoLimit:       "ping_limit",
	countInbound:         "published_connections",
	countBypassInbound:   "tcp_bypass_inbound",
	countBypassOutbound:  "tcp_bypass_outbound",
	countPeersInbound:    "tcp_sockets_inbound",
	countPeersOutbound:   "tcp_sockets_outbound",
	countProhibited:      "egress_prohibited",
	countDescriptorLimit: "descriptor_limit",
	countMemoryLimit:     "memory_limit",
}

// New makes a forwarder.
func New(cfg Config) (*Forwarder, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits
	}
	ownsShared := cfg.Shared == nil
	if ownsShared {
		cfg.Shared = NewShared(Limits{}, cfg.Limits)
	}
	if cfg.HostLoopback == nil {
		cfg.HostLoopback = func(netip.Addr) bool { return false }
	}
	r, err := cfg.Shared.acquireReactor()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Forwarder{
		cfg:        cfg,
		ctx:        ctx,
		cancel:     cancel,
		reactor:    r,
		ownsShared: ownsShared,
		loop:       relay.NewLoop(r, cfg.Shared.pipes, cfg.Logger),
		flows:      flowTable{},
		ends:       map[flowKey][]*flow{},
		use:        map[netip.Addr]usage{},
	}
	f.udp = mapping.New[netip.AddrPort, *association](f.table(useUDP, mapping.UDP))
	f.inbound = mapping.New[inboundKey, *inboundUDP](f.table(useClients, mapping.UDP))
	f.echo = mapping.New[echoKey, *pinger](f.table(useEcho, mapping.Ping))
	f.clients.byKey = map[clientKey]*inboundUDP{}
	f.publisher = publish.New(publish.Config{Table: cfg.Shared.Table, Reactor: r, Logger: cfg.Logger, Handler: f})
	return f, nil
}

func (f *Forwarder) table(kind usageKind, l mapping.Lifetimes) mapping.Config {
	return mapping.Config{Limiter: kindLimiter{f, kind}, Lifetimes: l}
}

// Close ends all flows and published ports and waits for them. Closing again does nothing.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	if again {
		return nil
	}
	f.cancel()
	f.mu.Lock()
	list := f.flows.all()
	f.mu.Unlock()
	for _, fl := range list {
		fl.abort()
	}
	f.publisher.Close()
	f.udp.Close()
	f.inbound.Close()
	f.echo.Close()
	f.reactor.Barrier()
	f.wg.Wait()
	f.cfg.Shared.releaseReactor(f.reactor)
	if f.ownsShared {
		return f.cfg.Shared.Close()
	}
	return nil
}

// AbortContainer ends the flows of the container at addr.
func (f *Forwarder) AbortContainer(addr netip.Addr) {
	f.mu.Lock()
	list := slices.Collect(maps.Keys(f.flows[addr]))
	f.mu.Unlock()
	for _, fl := range list {
		fl.abort()
	}
	f.udp.EndOf(addr)
	f.inbound.EndOf(addr)
	f.echo.EndOf(addr)
}

// gateway is the network's own address of a's family.
func (f *Forwarder) gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return f.cfg.Gateway4
	}
	return f.cfg.Gateway6
}

func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// outbound is where sockets towards a destination are bound; the zero address leaves it to the kernel.
func (f *Forwarder) outbound(to netip.Addr) netip.Addr {
	switch {
	case to.IsLoopback() && !f.cfg.OutboundLoopback:
		return netip.Addr{}
	case to.Is4():
		return f.cfg.OutboundAddr4
	}
	return f.cfg.OutboundAddr6
}

// outboundInterface is the host's interface that packets to a destination have to leave by; "": the routing table's
// choice.
func (f *Forwarder) outboundInterface(to netip.Addr) string {
	switch {
	case to.IsLoopback():
		return ""
	case to.Is4():
		return f.cfg.OutboundInterface4
	}
	return f.cfg.OutboundInterface6
}

// Locks are what has to be watched for hanging. A handler that hangs holds the reactor's.
func (f *Forwarder) Locks() []watchdog.Lock {
	return append([]watchdog.Lock{
		watchdog.Mutex("forwarder", &f.mu, 0),
		watchdog.Mutex("batches of datagrams", &f.toFlush.mu, 0),
		f.udp.Lock("UDP associations"),
		f.inbound.Lock("clients of published ports"),
		f.echo.Lock("pings"),
	}, f.reactor.Locks()...)
}

// Counters returns what was counted since the start.
func (f *Forwarder) Counters() map[string]uint64 {
	m := map[string]uint64{}
	for i := range f.counters {
		m[counterNames[i]] = f.counters[i].Load()
	}
	return m
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
