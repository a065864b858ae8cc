package dns

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
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
	Names     bool     // the directory is asked
	Upstreams []string // instead of the host's
}

// Config says how a server works.
type Config struct {
	Directory Directory
	Logger    *slog.Logger
	Upstreams *Upstreams
	CacheSize int
	// Learn is told the addresses in each answer from outside before the client gets it; nil where nobody wants to know.
	Learn func(client, name string, addrs []netip.Addr, ttl time.Duration)
}

// TTL of answers from the directory, in seconds: short, since containers come and go.
const ttl = 5

// Bounds: queries being forwarded for one client and in all, and how long an idle TCP connection is kept.
const (
	maxForwardClient = 256
	maxForward       = 1024
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
	conns                                                 map[io.Closer]struct{}
	queries, local, forwarded, failed, malformed, limited atomic.Uint64
}

// NewServer makes a server that answers nothing until it is given sockets.
func NewServer(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{cfg: cfg, ctx: ctx, cancel: cancel, inFlight: map[string]int{}, conns: map[io.Closer]struct{}{}}
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
		"failed": s.failed.Load(), "malformed": s.malformed.Load(), "limited": s.limited.Load()}
}

// ServePacket answers UDP queries until pc is closed. id says who is behind a source address.
func (s *Server) ServePacket(pc net.PacketConn, id func(net.Addr) Client) error {
	defer s.track(pc)()
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
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
		s.answer(id(from), m, "udp", func(r *dns.Msg) {
			r.Truncate(size)
			if b, err := r.Pack(); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		})
	}
}

// ServeListener answers TCP queries until l is closed.
func (s *Server) ServeListener(l net.Listener, id func(net.Addr) Client) error {
	defer s.track(l)()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.wg.Go(func() { s.serveConn(c, id(c.RemoteAddr())) })
	}
}

func (s *Server) serveConn(c net.Conn, client Client) {
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
		s.answer(client, m, "tcp", func(r *dns.Msg) {
			defer pending.Done()
			write.Lock()
			defer write.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(tcpIdle))
			_ = d.WriteMsg(r)
		})
	}
}

// answer calls reply once: at once for names of the directory, later for others.
func (s *Server) answer(c Client, m *dns.Msg, network string, reply func(*dns.Msg)) {
	s.queries.Add(1)
	if len(m.Question) != 1 || m.Opcode != dns.OpcodeQuery {
		r := new(dns.Msg)
		code := dns.RcodeFormatError
		if m.Opcode != dns.OpcodeQuery {
			code = dns.RcodeNotImplemented
		}
		reply(r.SetRcode(m, code))
		return
	}
	if r := s.fromDirectory(c, m); r != nil {
		s.local.Add(1)
		reply(r)
		return
	}
	if !c.Forward {
		r := new(dns.Msg)
		reply(r.SetRcode(m, dns.RcodeNameError))
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
		r, _ := s.forward(s.ctx, c, m, network)
		s.learn(c, r)
		reply(r)
	})
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
	s.total--
	if s.inFlight[id]--; s.inFlight[id] == 0 {
		delete(s.inFlight, id)
	}
}

// fromDirectory answers what must not go upstream; nil where the name is not ours.
func (s *Server) fromDirectory(c Client, m *dns.Msg) *dns.Msg {
	q := m.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	r := new(dns.Msg)
	r.SetReply(m)
	r.RecursionAvailable = true
	if q.Qclass != dns.ClassINET {
		return nil
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return addresses(r, q, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	}
	if addr, ok := reverse(name); ok {
		host, ours := s.cfg.Directory.LookupAddr(c.ID, addr)
		switch {
		case !ours:
			return nil
		case host == "":
			return r.SetRcode(m, dns.RcodeNameError)
		case q.Qtype == dns.TypePTR:
			r.Answer = append(r.Answer, &dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: dns.Fqdn(host)})
		}
		return r
	}
	if !c.Names {
		return nil
	}
	if labels := strings.SplitN(name, ".", 3); len(labels) == 3 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_") {
		list, ok := s.cfg.Directory.LookupService(c.ID, labels[0][1:], labels[1][1:], labels[2])
		if !ok {
			return nil
		}
		if q.Qtype == dns.TypeSRV {
			for _, x := range list {
				r.Answer = append(r.Answer, &dns.SRV{Hdr: header(q, dns.TypeSRV), Port: x.Port, Target: dns.Fqdn(x.Target)})
			}
		}
		return r
	}
	if addrs, ok := s.cfg.Directory.LookupName(c.ID, name); ok {
		return addresses(r, q, addrs)
	}
	if !strings.Contains(name, ".") && name != "" && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) {
		return r.SetRcode(m, dns.RcodeNameError) // a single label is nobody's outside (RFC 6761 leaves it to the local network)
	}
	return nil
}

func header(q dns.Question, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// addresses answers with those of the asked family, beginning anywhere in the list.
func addresses(r *dns.Msg, q dns.Question, addrs []netip.Addr) *dns.Msg {
	start := 0
	if len(addrs) > 1 {
		start = rand.IntN(len(addrs))
	}
	for i := range addrs {
		a := addrs[(start+i)%len(addrs)]
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			r.Answer = append(r.Answer, &dns.A{Hdr: header(q, dns.TypeA), A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return r
}

// reverse reads an in-addr.arpa or ip6.arpa name.
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return a, err == nil
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 32 {
			return netip.Addr{}, false
		}
		var b strings.Builder
		for i := 31; i >= 0; i-- {
			b.WriteString(l[i])
			if i%4 == 0 && i > 0 {
				b.WriteByte(':')
			}
		}
		a, err := netip.ParseAddr(b.String())
		return a, err == nil
	}
	return netip.Addr{}, false
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
	source := "zone"
	r := s.fromDirectory(c, m)
	if r == nil && c.Forward {
		r, source = s.forward(ctx, c, m, "udp")
	} else if r == nil {
		r = new(dns.Msg)
		r.SetRcode(m, dns.RcodeNameError)
	}
	return Result{r.Rcode, r.Answer, source, time.Since(begin)}, nil
}
