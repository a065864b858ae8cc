package dns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// upstream is one server that queries are forwarded to.
type upstream struct {
	addr netip.AddrPort
	name string // of its certificate; empty: not over TLS
}

// Ports of servers whose address names none (RFC 1035, RFC 7858).
const (
	portDNS = 53
	portTLS = 853
)

// ParseUpstream reads an upstream server: an address, address:port, or tls://address[:port][#name] for DNS over TLS
// (RFC 7858), where name is that of the server's certificate, by default its address.
func ParseUpstream(s string) (string, error) {
	u, err := parseUpstream(s)
	return u.String(), err
}

func parseUpstream(s string) (upstream, error) {
	rest, overTLS := strings.CutPrefix(s, "tls://")
	rest, name, _ := strings.Cut(rest, "#")
	port := uint16(portDNS)
	if overTLS {
		port = portTLS
	} else if name != "" {
		return upstream{}, fmt.Errorf("DNS server %q: a name of a certificate goes with tls:// only", s)
	}
	u := upstream{name: name}
	if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		u.addr = netip.AddrPortFrom(a, port)
	} else if u.addr, err = netip.ParseAddrPort(rest); err != nil || u.addr.Port() == 0 {
		return upstream{}, fmt.Errorf("DNS server %q: give an IP address, address:port, or tls://address[:port][#name]", s)
	}
	if overTLS && name == "" {
		u.name = u.addr.Addr().WithZone("").String()
	}
	return u, nil
}

// String is what ParseUpstream reads.
func (u upstream) String() string {
	switch {
	case !u.addr.IsValid():
		return ""
	case u.name == "":
		return u.addr.String()
	}
	return "tls://" + u.addr.String() + "#" + u.name
}

// transport carries queries to upstream servers.
type transport struct {
	roots *tls.Config // what certificates are checked with

	mu   sync.Mutex
	idle map[upstream]idleConn // TLS connections for the next query
}

type idleConn struct {
	conn  *dns.Conn
	since time.Time
}

// tlsIdle is how long a TLS connection is kept for the next query. Servers close theirs after about as long
// (RFC 7858, 3.4).
const tlsIdle = 10 * time.Second

func newTransport() *transport {
	return &transport{roots: &tls.Config{MinVersion: tls.VersionTLS12}, idle: map[upstream]idleConn{}}
}

// exchange asks u and returns its answer to m, which has been checked against the question. m is not changed.
func (t *transport) exchange(ctx context.Context, u upstream, m *dns.Msg) (*dns.Msg, error) {
	q := m.Copy()
	q.Id = dns.Id()
	if u.name != "" {
		return t.overTLS(ctx, u, q)
	}
	asked := q.Question[0].Name
	q.Question[0].Name = mixCase(asked)
	r, err := oneQuery(ctx, "udp", u, q)
	if err == nil && (r.Truncated || r.Question[0].Name != q.Question[0].Name) {
		// Too long; or not as asked to the letter, which may be a forger, or a server that keeps no case: over TCP nobody
		// can forge what he does not see.
		var full *dns.Msg
		if full, err = oneQuery(ctx, "tcp", u, q); err != nil && r.Truncated && r.Question[0].Name == q.Question[0].Name {
			full, err = r, nil // what there is of it
		}
		r = full
	}
	if err != nil {
		return nil, err
	}
	restoreCase(r, asked)
	return r, nil
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
	return nil, errors.New("the server answers other questions")
}

// answers says whether r is an answer to q.
func answers(r, q *dns.Msg) bool {
	return r.Response && r.Id == q.Id && r.Opcode == q.Opcode && len(r.Question) == 1 &&
		r.Question[0].Qtype == q.Question[0].Qtype && r.Question[0].Qclass == q.Question[0].Qclass &&
		strings.EqualFold(r.Question[0].Name, q.Question[0].Name)
}

// overTLS asks over a connection that is there, or else over a new one.
func (t *transport) overTLS(ctx context.Context, u upstream, q *dns.Msg) (*dns.Msg, error) {
	if c := t.take(u); c != nil {
		if r, err := converse(ctx, c, q); err == nil {
			t.keep(u, c)
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
	t.keep(u, c)
	return r, nil
}

func (t *transport) take(u upstream) *dns.Conn {
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

func (t *transport) keep(u upstream, c *dns.Conn) {
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

// ParseSplit reads DOMAIN=SERVER[,SERVER...]: the servers that names in a domain are asked of.
func ParseSplit(s string) (Split, error) {
	domain, list, ok := strings.Cut(s, "=")
	domain = strings.ToLower(strings.Trim(domain, "."))
	if _, valid := dns.IsDomainName(domain); !ok || domain == "" || !valid {
		return Split{}, fmt.Errorf("split DNS %s: give DOMAIN=SERVER[,SERVER...]", strconv.Quote(s))
	}
	split := Split{Domain: domain}
	for _, server := range strings.Split(list, ",") {
		u, err := ParseUpstream(server)
		if err != nil {
			return Split{}, err
		}
		split.Servers = append(split.Servers, u)
	}
	return split, nil
}

// Split says which servers are asked for the names in a domain.
type Split struct {
	Domain  string // in lower case, without dots at its ends
	Servers []string
}

// contains says whether a name, in lower case and without a final dot, is in the domain.
func (s Split) contains(name string) bool {
	return name == s.Domain || strings.HasSuffix(name, s.Domain) && name[len(name)-len(s.Domain)-1] == '.'
}
