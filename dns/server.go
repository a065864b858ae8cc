package dns

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/budget"
	"github.com/usernet/usernet/internal/openmetrics"
)

// Directory knows the names of containers, as each client may see them. Client is a container's id.
type Directory interface {
	// LookupName returns the addresses of name, which is in lower case without a final dot. So many last ones stay
	// behind the others in every answer.
	LookupName(client, name string) (addrs []netip.Addr, last int, found bool)
	// LookupAddr returns the name of an address; ours and "" means that the address is usernet's but nobody's.
	LookupAddr(client string, addr netip.Addr) (name string, ours bool)
	// LookupService returns the targets of _service._proto.name.
	LookupService(client, service, proto, name string) ([]Service, bool)
}

// Service is where a service is found.
type Service struct {
	Target string
	Port   uint16
}

// Client is who asks, and how they are answered.
type Client struct {
	ID      string
	Forward bool // other names go upstream
	// NoShort keeps names of hosts with one label from going upstream: the client's resolver adds a domain (ndots,
	// resolv.conf(5)).
	NoShort   bool
	Upstreams []string // instead of the host's
	// AllowQuery is asked before a question goes outside, or is answered from the cache; nil: all may. The name is in
	// lower case without a final dot; addr is the address whose name is asked for, else invalid. The error says why
	// not, to the client too.
	AllowQuery func(name string, addr netip.Addr) error
	// AllowAnswer is asked for each address in an answer from outside to a question for name, unless a Split has the
	// name; nil: all are passed on. Records with an address for which it returns an error are left out. It is called
	// by many goroutines at once.
	AllowAnswer func(name string, addr netip.Addr) error
}

// Config says how a server works.
type Config struct {
	Directory Directory
	Logger    *slog.Logger
	Upstreams *Upstreams
	CacheSize int     // answers from outside that are kept; 0: none
	Split     []Split // the servers of some domains
	// Questions bounds the questions that are being asked outside at one time: of each client, and of all. 0: the
	// default. Each holds a socket. Questions beyond that are answered SERVFAIL.
	Questions      int
	TotalQuestions int
	// Pin is called with the addresses of each answer from outside before the client gets it; it may be nil.
	Pin func(client, name string, addrs []netip.Addr, ttl time.Duration)
}

// Bounds of the questions that are being asked outside, unless Config has others.
const (
	DefaultQuestions      = 1024 // of one client, as in Docker (libnetwork's resolver)
	DefaultTotalQuestions = 4096 // so that four clients at their bound leave room for others
)

// Server answers queries. Make it with NewServer, end it with Close.
type Server struct {
	cfg       Config
	ctx       context.Context // ends when Close begins
	cancel    context.CancelFunc
	wg        sync.WaitGroup // answers from outside, and TCP connections
	cache     *cache
	flights   flights
	health    health
	transport *transport
	counters  counters
	recent    recent
	asking    openmetrics.Histogram // how long answers from outside took

	questions   *budget.Budget // being asked outside
	connections *budget.Budget // TCP, of clients
	pending     pendingQuestions

	sockets struct {
		sync.Mutex
		open map[io.Closer]struct{}
	}
}

// counters are counted since the start.
type counters struct {
	queries   atomic.Uint64
	local     atomic.Uint64 // answered from the directory
	forwarded atomic.Uint64
	failed    atomic.Uint64 // no server had an answer
	hits      atomic.Uint64 // of the cache
	malformed atomic.Uint64
	limited   atomic.Uint64 // refused because of a bound
	refused   atomic.Uint64 // by a client's policy
	filtered  atomic.Uint64 // answers that a client's policy left addresses out of
	unsent    atomic.Uint64 // replies that the client's socket did not take
}

// NewServer makes a server that answers nothing until it is given sockets.
func NewServer(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Questions <= 0 {
		cfg.Questions = DefaultQuestions
	}
	if cfg.TotalQuestions <= 0 {
		cfg.TotalQuestions = DefaultTotalQuestions
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg:         cfg,
		ctx:         ctx,
		cancel:      cancel,
		cache:       newCache(cfg.CacheSize),
		flights:     flights{byKey: map[cacheKey]*flight{}},
		health:      health{dead: map[upstream]failure{}},
		transport:   newTransport(cfg.Logger),
		questions:   budget.New(int64(cfg.Questions), int64(cfg.TotalQuestions)),
		connections: budget.New(maxConns, maxTotalConns),
	}
	s.sockets.open = map[io.Closer]struct{}{}
	if cfg.Upstreams != nil {
		cfg.Upstreams.OnChange(func() {
			s.cache.clear()
			s.health.forget()
			s.transport.abilities.forget()
		})
	}
	return s
}

// Close ends what is being answered. The sockets given to ServePacket and ServeListener are closed too.
func (s *Server) Close() error {
	s.cancel()
	s.sockets.Lock()
	for c := range s.sockets.open {
		_ = c.Close()
	}
	s.sockets.Unlock()
	s.wg.Wait()
	s.transport.close()
	return nil
}

// Durations are how long questions took that were asked outside, those included that nobody answered.
func (s *Server) Durations() openmetrics.Durations { return s.asking.Load() }

// Counters returns what was counted since the start.
func (s *Server) Counters() map[string]uint64 {
	c := &s.counters
	return map[string]uint64{
		"queries":    c.queries.Load(),
		"local":      c.local.Load(),
		"forwarded":  c.forwarded.Load(),
		"failed":     c.failed.Load(),
		"cache_hits": c.hits.Load(),
		"cached":     uint64(s.cache.len()),
		"malformed":  c.malformed.Load(),
		"limited":    c.limited.Load(),
		"refused":    c.refused.Load(),
		"filtered":   c.filtered.Load(),
		"unsent":     c.unsent.Load(),
		"asking":     uint64(s.questions.Used()), // now
	}
}
