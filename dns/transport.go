package dns

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// transport carries queries to upstream servers.
type transport struct {
	log       *slog.Logger
	roots     *tls.Config // what certificates are checked with
	abilities *abilities

	mu   sync.Mutex            // guards the rest
	idle map[upstream]idleConn // TLS connections for the next query
}

type idleConn struct {
	conn  *dns.Conn
	since time.Time
}

// tlsIdle is how long a TLS connection is kept for the next query. Servers close theirs after about as long
// (RFC 7858, 3.4).
const tlsIdle = 10 * time.Second

func newTransport(log *slog.Logger) *transport {
	return &transport{
		log:       log,
		roots:     &tls.Config{MinVersion: tls.VersionTLS12},
		abilities: newAbilities(),
		idle:      map[upstream]idleConn{},
	}
}

// exchange asks u and returns its answer to own, a client's question, which has been checked against it. own is not
// changed. The context has a deadline.
func (t *transport) exchange(ctx context.Context, u upstream, own *dns.Msg) (*dns.Msg, error) {
	if u.name == "" {
		return t.overUDP(ctx, u, own)
	}
	f := form{edns: own.IsEdns0() == nil && t.abilities.tries(u, improveEDNS)}
	r, err := t.overTLS(ctx, u, f.query(own))
	if err != nil || !f.edns || !ednsRefused(r.Rcode, t.abilities.proven(u, improveEDNS)) {
		return r, err
	}
	plain, err := t.overTLS(ctx, u, form{}.query(own))
	if err != nil {
		return r, nil
	}
	if plain.Rcode != r.Rcode {
		t.abilities.failed(u, improveEDNS, r.Rcode != dns.RcodeServerFailure)
	}
	return plain, nil
}

// mixCase changes letters' case at random: an answer has to repeat it, which makes forging harder
// (draft-vixie-dnsext-dns0x20).
func mixCase(name string) string {
	b := []byte(name)
	bits := rand.Uint64()
	for i, c := range b {
		if ('a' <= c|0x20 && c|0x20 <= 'z') && bits>>(i%64)&1 == 1 {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// restoreCase undoes it.
func restoreCase(r *dns.Msg, asked string) {
	mixed := r.Question[0].Name
	r.Question[0].Name = asked
	if mixed == asked {
		return
	}
	for _, section := range [][]dns.RR{r.Answer, r.Ns, r.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Name == mixed {
				h.Name = asked
			}
		}
	}
}

// oneQuery sends q from a socket, and so a port, of its own.
func oneQuery(ctx context.Context, network string, u upstream, q *dns.Msg) (*dns.Msg, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, u.addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return converse(ctx, &dns.Conn{Conn: c, UDPSize: dns.MaxMsgSize}, q)
}

// converse sends q and waits for its answer. What answers something else is passed over.
func converse(ctx context.Context, c *dns.Conn, q *dns.Msg) (*dns.Msg, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(upstreamTimeout)
	}
	_ = c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	_, stream := c.Conn.(*net.TCPConn)
	for wrong := 0; wrong < 16; wrong++ {
		r, err := c.ReadMsg()
		if err == nil && answers(r, q) {
			return r, nil
		}
		var ne net.Error
		if err != nil && (stream || errors.As(err, &ne)) {
			return nil, err
		}
	}
	return nil, errNoSense
}

var errNoSense = errors.New("the server answers other questions")

// answers says whether r is an answer to q. Servers that do not understand a question may leave it out (RFC 1035,
// 4.1.1: format error).
func answers(r, q *dns.Msg) bool {
	if !r.Response || r.Id != q.Id || r.Opcode != q.Opcode {
		return false
	}
	switch len(r.Question) {
	case 0:
		return r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError
	case 1:
		return r.Question[0].Qtype == q.Question[0].Qtype && r.Question[0].Qclass == q.Question[0].Qclass &&
			strings.EqualFold(r.Question[0].Name, q.Question[0].Name)
	}
	return false
}

// overTLS asks over a connection that is there, or else over a new one.
func (t *transport) overTLS(ctx context.Context, u upstream, q *dns.Msg) (*dns.Msg, error) {
	if c := t.takeIdle(u); c != nil {
		if r, err := converse(ctx, c, q); err == nil {
			t.putIdle(u, c)
			return r, nil
		}
		_ = c.Close() // the server had closed it, most likely
	}
	cfg := t.roots.Clone()
	cfg.ServerName = u.name
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", u.addr.String())
	if err != nil {
		return nil, err
	}
	c := &dns.Conn{Conn: conn}
	r, err := converse(ctx, c, q)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	t.putIdle(u, c)
	return r, nil
}

// takeIdle returns a connection to u that is open and has nothing to do; nil: there is none.
func (t *transport) takeIdle(u upstream) *dns.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.idle[u]
	delete(t.idle, u)
	if !ok {
		return nil
	}
	if time.Since(i.since) > tlsIdle {
		_ = i.conn.Close()
		return nil
	}
	return i.conn
}

// putIdle leaves a connection for the next query, or closes it where there is one already.
func (t *transport) putIdle(u upstream, c *dns.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.idle[u]; taken || t.idle == nil {
		_ = c.Close()
		return
	}
	t.idle[u] = idleConn{c, time.Now()}
}

func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.idle {
		_ = i.conn.Close()
	}
	t.idle = nil
}
