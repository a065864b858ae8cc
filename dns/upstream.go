package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// upstreamTimeout is how long one server may take for one query; Docker's is the same.
const upstreamTimeout = 4 * time.Second

// Upstreams are the host's resolvers, read anew when their file changes.
type Upstreams struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	modTime time.Time
	size    int64
	servers []string
	search  []string
}

// NewUpstreams reads path, a resolv.conf(5).
func NewUpstreams(path string, log *slog.Logger) (*Upstreams, error) {
	u := &Upstreams{path: path, log: log}
	u.refresh()
	return u, nil
}

// Close frees what NewUpstreams took.
func (u *Upstreams) Close() error { return nil }

// refresh reads the file again where it has changed; it looks at most once a second.
func (u *Upstreams) refresh() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.checked) < time.Second {
		return
	}
	u.checked = time.Now()
	info, err := os.Stat(u.path)
	if err != nil {
		u.servers, u.search, u.modTime = nil, nil, time.Time{}
		return
	}
	if info.ModTime().Equal(u.modTime) && info.Size() == u.size {
		return
	}
	cfg, err := dns.ClientConfigFromFile(u.path)
	if err != nil {
		u.log.Warn("host's resolvers cannot be read", "path", u.path, "error", err)
		return
	}
	u.modTime, u.size, u.servers, u.search = info.ModTime(), info.Size(), nil, cfg.Search
	for _, s := range cfg.Servers {
		u.servers = append(u.servers, net.JoinHostPort(s, cfg.Port))
	}
}

// Servers are the host's resolvers, with ports.
func (u *Upstreams) Servers() []string {
	u.refresh()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servers
}

// Search are the host's search domains.
func (u *Upstreams) Search() []string {
	u.refresh()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.search
}

// forward asks the client's upstream servers in order, and returns the first answer and its source.
func (s *Server) forward(ctx context.Context, c Client, m *dns.Msg, network string) (*dns.Msg, string) {
	servers := c.Upstreams
	if len(servers) == 0 {
		servers = s.cfg.Upstreams.Servers()
	}
	s.forwarded.Add(1)
	for _, server := range servers[:min(len(servers), 3)] {
		if a, err := netip.ParseAddr(server); err == nil {
			server = netip.AddrPortFrom(a, 53).String()
		}
		r, err := exchange(ctx, m, network, server)
		if err != nil {
			s.cfg.Logger.Debug("DNS upstream", "server", server, "name", m.Question[0].Name, "error", err)
			continue
		}
		r.Id = m.Id
		return r, "upstream " + server
	}
	s.failed.Add(1)
	r := new(dns.Msg)
	return r.SetRcode(m, dns.RcodeServerFailure), "none"
}

func exchange(ctx context.Context, m *dns.Msg, network, server string) (*dns.Msg, error) {
	q := m.Copy()
	q.Id = dns.Id()
	client := &dns.Client{Net: network, Timeout: upstreamTimeout, UDPSize: dns.DefaultMsgSize}
	r, _, err := client.ExchangeContext(ctx, q, server)
	if err == nil && r.Truncated && network == "udp" {
		client.Net = "tcp"
		if full, _, err := client.ExchangeContext(ctx, q, server); err == nil {
			r = full
		}
	}
	if err != nil {
		return nil, err
	}
	if len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, q.Question[0].Name) || r.Question[0].Qtype != q.Question[0].Qtype {
		return nil, errors.New("the answer is to another question")
	}
	return r, nil
}
