package dns

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/isolate"
)

// How long one server may take: the last for as long as a resolver waits, those before so long that the next is still
// asked in time (resolv.conf(5): 5 seconds).
const (
	upstreamTimeout = 4 * time.Second
	failoverTimeout = 2 * time.Second
)

// Servers that did not answer are asked last, for a time that doubles with each failure.
const (
	deadFirst = 5 * time.Second
	deadMax   = time.Minute
)

// maxServers bounds how many servers one query tries; resolv.conf(5) has three at most.
const maxServers = 3

// health remembers which servers do not answer.
type health struct {
	mu   sync.Mutex // guards the rest
	dead map[upstream]failure
}

type failure struct {
	until time.Time
	times int
}

// order puts the servers that are known not to answer behind the others.
func (h *health) order(list []upstream) []upstream {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.dead) == 0 || len(list) < 2 {
		return list
	}
	now := time.Now()
	var alive, dead []upstream
	for _, u := range list {
		if now.Before(h.dead[u].until) {
			dead = append(dead, u)
		} else {
			alive = append(alive, u)
		}
	}
	return append(alive, dead...)
}

func (h *health) failed(u upstream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.dead) > 1000 { // containers choose their servers themselves
		clear(h.dead)
	}
	f := h.dead[u]
	f.until = time.Now().Add(min(deadFirst<<min(f.times, 8), deadMax))
	f.times++
	h.dead[u] = f
}

// forget forgets all failures: the servers have changed.
func (h *health) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.dead)
}

func (h *health) answered(u upstream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.dead, u)
}

// serversFor are the servers that a client's question goes to, and their text, which tells apart what may not share
// answers.
func (s *Server) serversFor(c Client, name string) ([]upstream, string) {
	servers := c.Upstreams
	if split := s.splitOf(name); split != nil {
		servers = split.Servers
	}
	if len(servers) == 0 {
		servers = s.cfg.Upstreams.Servers()
	}
	servers = servers[:min(len(servers), maxServers)]
	list := make([]upstream, 0, len(servers))
	for _, text := range servers {
		if u, err := parseUpstream(text); err == nil {
			list = append(list, u)
		}
	}
	return list, strings.Join(servers, ",")
}

// splitOf is the longest domain with servers of its own that name is in; nil: none. Among equal ones the last counts.
func (s *Server) splitOf(name string) *Split {
	var best *Split
	for i, split := range s.cfg.Split {
		if split.contains(name) && (best == nil || len(split.Domain) >= len(best.Domain)) {
			best = &s.cfg.Split[i]
		}
	}
	return best
}

// resolve answers a question from outside: from the cache, from a query that is under way for the same, or from a
// server. The answer is the caller's own; source says where it is from.
func (s *Server) resolve(ctx context.Context, c Client, m *dns.Msg) (r *dns.Msg, source string) {
	name := questionName(m)
	servers, text := s.serversFor(c, name)
	query, shareable := forwardedQuery(m)
	key := cacheKey{name, m.Question[0].Qtype, m.Question[0].Qclass, flagsOf(query), text}
	if shareable {
		if r := s.cache.get(key); r != nil {
			s.counters.hits.Add(1)
			return answerTo(r, m), "cache"
		}
	}
	s.counters.forwarded.Add(1)
	ask := func() (found answer, err error) {
		err = isolate.Call(s.cfg.Logger, "asking DNS servers", func() (err error) { // others may wait for the answer
			if faults.Enabled {
				faults.Check(faults.Forward, []byte(name))
			}
			began := time.Now()
			found.msg, found.from, err = s.ask(s.ctx, servers, query)
			s.asking.Observe(time.Since(began))
			if err == nil && shareable {
				s.cache.put(c.ID, key, found.msg)
			}
			return err
		})
		return found, err
	}
	var a answer
	var err error
	if shareable {
		joined := key // one with EDNS is the client's own question, which a server may leave unanswered
		if query.IsEdns0() != nil {
			joined.flags |= flagEDNS
		}
		a, err = s.flights.do(ctx, joined, ask)
	} else {
		a, err = ask()
	}
	if err != nil {
		s.counters.failed.Add(1)
		s.cfg.Logger.Debug("DNS query failed", "name", name, "servers", text, "error", err)
		r := new(dns.Msg)
		r.SetRcode(m, dns.RcodeServerFailure)
		r.RecursionAvailable = true
		return r, "none"
	}
	return answerTo(a.msg.Copy(), m), "upstream " + a.from
}

// answer is what a server said.
type answer struct {
	msg  *dns.Msg
	from string
}

var errNoServers = errors.New("no DNS servers: the host's resolv.conf names none")

// ask asks servers one after another.
func (s *Server) ask(ctx context.Context, servers []upstream, q *dns.Msg) (*dns.Msg, string, error) {
	last := errNoServers
	var fallback *dns.Msg // better than no answer
	var from string
	servers = s.health.order(servers)
	for i, u := range servers {
		timeout := upstreamTimeout
		if i < len(servers)-1 {
			timeout = failoverTimeout
		}
		one, cancel := context.WithTimeout(ctx, timeout)
		r, err := s.transport.exchange(one, u, q)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				s.health.failed(u)
			}
			s.cfg.Logger.Debug(
				"DNS server does not answer",
				"server",
				u.String(),
				"name",
				q.Question[0].Name,
				"error",
				err,
			)
			last = err
			continue
		}
		s.health.answered(u)
		if r.Rcode != dns.RcodeServerFailure && r.Rcode != dns.RcodeRefused && r.Rcode != dns.RcodeNotImplemented {
			return r, u.String(), nil
		}
		if fallback == nil {
			fallback, from = r, u.String()
		}
	}
	if fallback != nil {
		return fallback, from, nil
	}
	return nil, "", last
}

// ednsSize is the UDP size that we announce to servers: what is not fragmented anywhere (RFC 9715, DNS flag day 2020).
const ednsSize = 1232

// Options that are between two neighbours only, and are not passed on: cookies, keepalive and padding (RFC 7873,
// 7828, 7830).
func hopByHop(code uint16) bool {
	return code == dns.EDNS0COOKIE || code == dns.EDNS0TCPKEEPALIVE || code == dns.EDNS0PADDING
}

// forwardedQuery is what a server is asked for m, and whether the answer is the same for all who ask so: not with
// options, such as a client's subnet (RFC 7871), that go with it.
func forwardedQuery(m *dns.Msg) (*dns.Msg, bool) {
	q := new(dns.Msg)
	q.Question = []dns.Question{m.Question[0]}
	q.RecursionDesired = m.RecursionDesired
	q.CheckingDisabled = m.CheckingDisabled
	q.AuthenticatedData = m.AuthenticatedData
	shareable := true
	if o := m.IsEdns0(); o != nil {
		q.SetEdns0(ednsSize, o.Do())
		own := q.IsEdns0()
		for _, option := range o.Option {
			if !hopByHop(option.Option()) {
				own.Option = append(own.Option, option)
				shareable = false
			}
		}
	}
	return q, shareable
}

// answerTo makes r, an answer from outside, the answer to m: its id and question, and EDNS only if m has it (RFC
// 6891, 6.1.1).
func answerTo(r, m *dns.Msg) *dns.Msg {
	r.Id = m.Id
	r.Question = m.Question
	r.Response, r.RecursionAvailable, r.RecursionDesired = true, true, m.RecursionDesired
	extra := r.Extra[:0]
	var theirs *dns.OPT
	for _, rr := range r.Extra {
		if o, ok := rr.(*dns.OPT); ok {
			theirs = o
		} else {
			extra = append(extra, rr)
		}
	}
	r.Extra = extra
	if o := m.IsEdns0(); o != nil {
		r.SetEdns0(ednsSize, o.Do())
		if theirs != nil {
			for _, option := range theirs.Option {
				if !hopByHop(option.Option()) {
					r.IsEdns0().Option = append(r.IsEdns0().Option, option)
				}
			}
		}
	}
	return r
}
