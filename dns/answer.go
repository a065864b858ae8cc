package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/isolate"
)

// answer calls reply once: before it returns for what needs no server outside, later for what does.
func (s *Server) answer(c Client, m *dns.Msg, reply func(*dns.Msg)) {
	s.counters.queries.Add(1)
	if faults.Enabled && len(m.Question) > 0 {
		faults.Check(faults.Query, []byte(m.Question[0].Name))
	}
	if r, source := s.answerWithoutUpstream(c, m); r != nil {
		s.log(c, m, r, source, time.Now())
		reply(r)
		return
	}
	if s.ctx.Err() != nil || !s.questions.Acquire(c.ID, 1) {
		s.counters.limited.Add(1)
		r := new(dns.Msg)
		reply(r.SetRcode(m, dns.RcodeServerFailure))
		return
	}
	s.pending.add()
	s.wg.Go(func() {
		defer s.pending.done()
		r := new(dns.Msg).SetRcode(m, dns.RcodeServerFailure) // where finding the answer ends in a panic
		isolate.Do(s.cfg.Logger, "asking outside for a DNS client", func() {
			began := time.Now()
			found, source := s.resolve(s.ctx, c, m)
			s.filter(c, m, found)
			s.pin(c, found)
			s.log(c, m, found, source, began)
			r = found
		}, "container", c.ID)
		s.questions.Release(c.ID, 1) // before the reply, which a client may hold up
		isolate.Do(s.cfg.Logger, "replying to a DNS client", func() { reply(r) }, "container", c.ID)
	})
}

// answerWithoutUpstream answers what needs no server outside or may not be asked there, and says why; nil where the
// question goes outside.
func (s *Server) answerWithoutUpstream(c Client, m *dns.Msg) (r *dns.Msg, source string) {
	if r := s.answerLocal(c, m); r != nil {
		return r, "zone"
	}
	return s.deniedByPolicy(c, m), "egress policy"
}

// answerLocal answers names of containers, and questions that no server outside is asked; nil for others.
func (s *Server) answerLocal(c Client, m *dns.Msg) *dns.Msg {
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
		s.counters.local.Add(1)
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

// deniedByPolicy is the answer to a question that Client.AllowQuery does not let outside; nil where it may go.
//
// It is "no such name", the one answer that every resolver takes at once as the last word: for REFUSED glibc reports
// a temporary failure, which programs try again, and musl drops it and waits 5 seconds. Without an SOA record nobody
// keeps it (RFC 2308, 5). Who asks with EDNS is told why (RFC 8914, 4.16: blocked by a policy of the server's
// operator).
func (s *Server) deniedByPolicy(c Client, m *dns.Msg) *dns.Msg {
	if c.AllowQuery == nil {
		return nil
	}
	q := m.Question[0]
	name := questionName(m)
	var addr netip.Addr
	if q.Qtype == dns.TypePTR && q.Qclass == dns.ClassINET {
		addr, _ = reverse(name)
	}
	err := c.AllowQuery(name, addr)
	if err == nil {
		return nil
	}
	s.counters.refused.Add(1)
	r := new(dns.Msg)
	r.SetRcode(m, dns.RcodeNameError)
	r.RecursionAvailable = true
	explain(r, m, dns.ExtendedErrorCodeBlocked, "egress policy: "+err.Error())
	return r
}

// explain adds an extended error (RFC 8914) to r, the answer to m, where m has EDNS.
func explain(r, m *dns.Msg, code uint16, text string) {
	o := m.IsEdns0()
	if o == nil {
		return
	}
	if r.IsEdns0() == nil {
		r.SetEdns0(ednsSize, o.Do())
	}
	own := r.IsEdns0()
	own.Option = append(own.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
}

// questionName is the name that m asks for, in lower case without a final dot.
func questionName(m *dns.Msg) string {
	return strings.ToLower(strings.TrimSuffix(m.Question[0].Name, "."))
}

// pin tells Config.Pin which addresses an answer from outside has for the name that was asked for, before the client
// has the answer. Aliases on the way (CNAME) do not matter: the addresses are those of the name.
func (s *Server) pin(c Client, r *dns.Msg) {
	if s.cfg.Pin == nil || r == nil || r.Rcode != dns.RcodeSuccess || len(r.Question) != 1 {
		return
	}
	var addrs []netip.Addr
	shortest := uint32(1<<31 - 1) // RFC 2181, 8: the longest time to live
	for _, rr := range r.Answer {
		var ip []byte
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A.To4()
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
		}
		shortest = min(shortest, rr.Header().Ttl)
	}
	if len(addrs) > 0 {
		s.cfg.Pin(c.ID, r.Question[0].Name, addrs, time.Duration(shortest)*time.Second)
	}
}

// log writes one line for each query, at the level for those who look for a fault.
func (s *Server) log(c Client, m, r *dns.Msg, source string, began time.Time) {
	s.recent.add(c, m, r, source, began)
	if !s.cfg.Logger.Enabled(s.ctx, slog.LevelDebug) || len(m.Question) != 1 {
		return
	}
	q := m.Question[0]
	s.cfg.Logger.Debug("DNS",
		"container", c.ID, "name", q.Name, "type", dns.Type(q.Qtype).String(), "rcode", dns.RcodeToString[r.Rcode],
		"answers", len(r.Answer), "source", source, "took", time.Since(began))
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
	r, source := s.answerWithoutUpstream(c, m)
	if r == nil {
		r, source = s.resolve(ctx, c, m)
		s.filter(c, m, r)
	}
	return Result{r.Rcode, r.Answer, source, time.Since(begin)}, nil
}
