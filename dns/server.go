package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Directory knows the names of containers, as each client may see them. Client is a container's id.
type Directory interface {
	// LookupName returns the addresses of name, which is in lower case without a final dot.
	LookupName(client, name string) (addrs []netip.Addr, found bool)
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

// Client says who asks and how they are answered.
type Client struct {
	ID        string
	Forward   bool     // other names go upstream
	Upstreams []string // instead of the host's
	Split     []Split  // for some domains, besides the server's own
	// Allow is asked before a question goes outside, or is answered from the cache; nil: all may. The name is in lower case
	// without a final dot; addr is the address whose name is asked for, else invalid. The error says why not, to the client too.
	Allow func(name string, addr netip.Addr) error
}

// Config says how a server works.
type Config struct {
	Directory Directory
	Logger    *slog.Logger
	Upstreams *Upstreams
	CacheSize int     // answers from outside that are kept; 0: none
	Split     []Split // the servers of some domains
	// Learn is told the addresses in each answer from outside before the client gets it; nil where nobody wants to know.
	Learn func(client, name string, addrs []netip.Addr, ttl time.Duration)
}

// Bounds: queries being forwarded for one client and in all, and how long an idle TCP connection is kept.
const (
	maxForwardClient = 256
	maxForward       = 1024
	maxConns         = 64               // TCP connections of one client
	tcpIdle          = 10 * time.Second // RFC 7766, 6.2.3 asks for seconds
)

// Server answers queries. Make it with NewServer, end it with Close.
type Server struct {
	cfg                                                   Config
	ctx                                                   context.Context
	cancel                                                context.CancelFunc
	wg                                                    sync.WaitGroup
	mu                                                    sync.Mutex
	inFlight                                              map[string]int
	total                                                 int
	drained                                               []chan struct{} // closed when total is 0
	conns                                                 map[io.Closer]struct{}
	connsOf                                               map[string]int
	cache                                                 *cache
	flights                                               flights
	health                                                health
	transport                                             *transport
	queries, local, forwarded, failed, malformed, limited atomic.Uint64
	hits, refused                                         atomic.Uint64
}

// NewServer makes a server that answers nothing until it is given sockets.
func NewServer(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, ctx: ctx, cancel: cancel, inFlight: map[string]int{}, conns: map[io.Closer]struct{}{}, connsOf: map[string]int{},
		cache: newCache(cfg.CacheSize), flights: flights{now: map[cacheKey]*flight{}}, health: health{dead: map[upstream]failure{}}, transport: newTransport(),
	}
	if cfg.Upstreams != nil {
		cfg.Upstreams.OnChange(s.cache.clear)
	}
	return s
}

// Close ends what is being answered. The sockets given to Serve are closed too.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.transport.close()
	return nil
}

func (s *Server) track(c io.Closer) func() {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}
}

// Counters returns what was counted since the start.
func (s *Server) Counters() map[string]uint64 {
	return map[string]uint64{"queries": s.queries.Load(), "local": s.local.Load(), "forwarded": s.forwarded.Load(),
		"failed": s.failed.Load(), "cache_hits": s.hits.Load(), "cached": uint64(s.cache.len()), "malformed": s.malformed.Load(), "limited": s.limited.Load(), "refused": s.refused.Load()}
}

// ServePacket answers UDP queries until pc is closed, or its read deadline has passed. id says who is behind a source address.
func (s *Server) ServePacket(pc net.PacketConn, id func(net.Addr) Client) error {
	defer s.track(pc)()
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			if s.ctx.Err() != nil {
				return net.ErrClosed
			}
			return err
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			s.malformed.Add(1)
			if n >= 12 && buf[2]&0x80 == 0 {
				_, _ = pc.WriteTo([]byte{buf[0], buf[1], 0x80 | buf[2]&0x79, dns.RcodeFormatError, 0, 0, 0, 0, 0, 0, 0, 0}, from)
			}
			continue
		}
		if m.Response {
			continue
		}
		size := dns.MinMsgSize
		if o := m.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		s.answer(id(from), m, func(r *dns.Msg) {
			r.Truncate(size)
			if b, err := r.Pack(); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		})
	}
}

// ServeListener answers TCP queries until l is closed, or its deadline has passed.
func (s *Server) ServeListener(l net.Listener, id func(net.Addr) Client) error {
	defer s.track(l)()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		client := id(c.RemoteAddr())
		if !s.admit(client.ID) {
			s.limited.Add(1)
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.leave(client.ID)
			s.serveConn(c, id)
		})
	}
}

// admit counts one more TCP connection of a client, unless it has too many.
func (s *Server) admit(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connsOf[id] >= maxConns || s.ctx.Err() != nil {
		return false
	}
	s.connsOf[id]++
	return true
}

func (s *Server) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connsOf[id]--; s.connsOf[id] == 0 {
		delete(s.connsOf, id)
	}
}

// serveConn answers what comes over c. Who asks is found anew for each question, as what they may ask for changes.
func (s *Server) serveConn(c net.Conn, id func(net.Addr) Client) {
	defer s.track(c)()
	defer c.Close()
	d := &dns.Conn{Conn: c}
	var write sync.Mutex
	var pending sync.WaitGroup
	defer pending.Wait()
	for s.ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
		m, err := d.ReadMsg()
		if err != nil {
			return
		}
		pending.Add(1)
		s.answer(id(c.RemoteAddr()), m, func(r *dns.Msg) {
			defer pending.Done()
			write.Lock()
			defer write.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(tcpIdle))
			_ = d.WriteMsg(r)
		})
	}
}

// answer calls reply once: at once for what is known here, later for what is asked outside.
func (s *Server) answer(c Client, m *dns.Msg, reply func(*dns.Msg)) {
	s.queries.Add(1)
	if r, source := s.atOnce(c, m); r != nil {
		s.log(c, m, r, source, time.Now())
		reply(r)
		return
	}
	if !s.begin(c.ID) {
		s.limited.Add(1)
		r := new(dns.Msg)
		reply(r.SetRcode(m, dns.RcodeServerFailure))
		return
	}
	s.wg.Go(func() {
		defer s.end(c.ID)
		began := time.Now()
		r, source := s.resolve(s.ctx, c, m)
		s.learn(c, r)
		s.log(c, m, r, source, began)
		reply(r)
	})
}

// atOnce answers without asking anybody, and says why; nil where the question goes outside.
func (s *Server) atOnce(c Client, m *dns.Msg) (r *dns.Msg, source string) {
	if r := s.known(c, m); r != nil {
		return r, "zone"
	}
	return s.prohibited(c, m), "egress policy"
}

// known answers what need not, or must not, be asked outside; nil where it has to be.
func (s *Server) known(c Client, m *dns.Msg) *dns.Msg {
	r := new(dns.Msg)
	switch {
	case m.Opcode != dns.OpcodeQuery:
		return r.SetRcode(m, dns.RcodeNotImplemented)
	case len(m.Question) != 1:
		return r.SetRcode(m, dns.RcodeFormatError)
	case m.Question[0].Qtype == dns.TypeAXFR || m.Question[0].Qtype == dns.TypeIXFR:
		return r.SetRcode(m, dns.RcodeRefused)
	}
	if o := m.IsEdns0(); o != nil && o.Version() != 0 {
		r.SetRcode(m, dns.RcodeBadVers) // RFC 6891, 6.1.3
		r.SetEdns0(ednsSize, false)
		return r
	}
	if zone := s.fromDirectory(c, m); zone != nil {
		s.local.Add(1)
		if o := m.IsEdns0(); o != nil {
			zone.SetEdns0(ednsSize, o.Do())
		}
		return zone
	}
	if !c.Forward {
		r.SetRcode(m, dns.RcodeNameError)
		r.RecursionAvailable = true
		return r
	}
	return nil
}

// log writes one line for each query, at the level for those who look for a fault.
func (s *Server) log(c Client, m, r *dns.Msg, source string, began time.Time) {
	if !s.cfg.Logger.Enabled(s.ctx, slog.LevelDebug) || len(m.Question) != 1 {
		return
	}
	q := m.Question[0]
	s.cfg.Logger.Debug("DNS", "container", c.ID, "name", q.Name, "type", dns.Type(q.Qtype).String(), "rcode", dns.RcodeToString[r.Rcode],
		"answers", len(r.Answer), "source", source, "took", time.Since(began))
}

func (s *Server) begin(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight[id] >= maxForwardClient || s.total >= maxForward || s.ctx.Err() != nil {
		return false
	}
	s.inFlight[id]++
	s.total++
	return true
}

func (s *Server) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total--; s.total == 0 {
		s.tellDrained()
	}
	if s.inFlight[id]--; s.inFlight[id] == 0 {
		delete(s.inFlight, id)
	}
}

// Result is an answer with where it came from.
type Result struct {
	Rcode    int
	Answer   []dns.RR
	Source   string
	Duration time.Duration
}

// Query answers as the client would be answered.
func (s *Server) Query(ctx context.Context, c Client, name string, qtype uint16) (Result, error) {
	begin := time.Now()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	r, source := s.atOnce(c, m)
	if r == nil {
		r, source = s.resolve(ctx, c, m)
	}
	return Result{r.Rcode, r.Answer, source, time.Since(begin)}, nil
}
