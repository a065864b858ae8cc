package dns

import (
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what is remembered of questions.
const (
	keptQuestions = 256
	keptAddrs     = 4 // of an answer
)

// Question is one that a client has asked, with its answer in short.
type Question struct {
	Time     time.Time // when it was answered
	Client   string
	Name     string // in zone-file form
	Type     uint16
	Rcode    int
	Source   string // as in Result
	Duration time.Duration
	Addrs    []netip.Addr // the first ones of the answer
}

// recent has the latest questions, in a ring.
type recent struct {
	mu   sync.Mutex // guards the rest
	ring [keptQuestions]keptQuestion
	next int // where the next one goes
	full bool
}

// keptQuestion is a Question that has its addresses in place, so that none is allocated.
type keptQuestion struct {
	Question
	addrs [keptAddrs]netip.Addr
	count int
}

func (h *recent) add(c Client, m, r *dns.Msg, source string, began time.Time) {
	if len(m.Question) != 1 {
		return
	}
	now, asked := time.Now(), m.Question[0]
	h.mu.Lock()
	defer h.mu.Unlock()
	q := &h.ring[h.next]
	if h.next++; h.next == keptQuestions {
		h.next, h.full = 0, true
	}
	q.Question = Question{
		Time: now, Client: c.ID, Name: asked.Name, Type: asked.Qtype, Rcode: r.Rcode, Source: source,
		Duration: now.Sub(began),
	}
	q.count = 0
	for _, rr := range r.Answer {
		if q.count == keptAddrs {
			break
		}
		var addr netip.Addr
		var ok bool
		switch rr := rr.(type) {
		case *dns.A:
			addr, ok = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			addr, ok = netip.AddrFromSlice(rr.AAAA)
		}
		if ok {
			q.addrs[q.count] = addr.Unmap()
			q.count++
		}
	}
}

// Recent are the latest questions of all clients, the oldest first.
func (s *Server) Recent() []Question {
	h := &s.recent
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Question
	first, n := 0, h.next
	if h.full {
		first, n = h.next, keptQuestions
	}
	for i := range n {
		q := &h.ring[(first+i)%keptQuestions]
		one := q.Question
		one.Addrs = append([]netip.Addr{}, q.addrs[:q.count]...)
		list = append(list, one)
	}
	return list
}
