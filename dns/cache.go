package dns

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// cacheKey is what answers have to agree in to be the same.
type cacheKey struct {
	name          string // in lower case
	qtype, qclass uint16
	flags         uint8
	servers       string
}

// flagEDNS is one more bit than those of flagsOf: with EDNS.
const flagEDNS = 1 << 7

// flagsOf are the bits of a query that its answer depends on.
func flagsOf(q *dns.Msg) uint8 {
	var f uint8
	for i, set := range []bool{
		q.RecursionDesired,
		q.CheckingDisabled,
		q.AuthenticatedData,
		q.IsEdns0() != nil && q.IsEdns0().Do(),
	} {
		if set {
			f |= 1 << i
		}
	}
	return f
}

// Bounds of what is kept: for how long (RFC 2308, 5 asks for a bound of negative answers; RFC 8767 suggests a day for
// others, but containers move between networks), and answers of which size in bytes.
const (
	cacheTTL         = time.Hour
	cacheNegativeTTL = 5 * time.Minute
	cacheAnswerSize  = 4096
)

// cache has answers until their time is over. Where there is no room for a new one, the client whose answers take the
// most gives up the one that was used the longest ago: so a client that asks for ever more names loses its own. An
// answer counts for the client that it was fetched for, and serves all. A nil cache has nothing.
type cache struct {
	size  int // answers
	bytes int // of all answers as they are on the wire

	mu      sync.Mutex // guards the rest
	now     func() time.Time
	byKey   map[cacheKey]*list.Element // of *cached
	clients map[string]*shelf          // those that have answers
	held    int                        // bytes
}

// shelf is the answers of one client.
type shelf struct {
	used *list.List // of *cached, the last used first
	held int        // bytes
}

// answerShare is the mean size of an answer in a full cache, in bytes.
const answerShare = 512

// load is how much of the cache a client takes, in answers and in bytes alike.
func (s *shelf) load() int { return s.used.Len()*answerShare + s.held }

type cached struct {
	key           cacheKey
	client        string
	wire          []byte
	stored, until time.Time
}

// newCache makes a cache of size answers; of 0 or less, none.
func newCache(size int) *cache {
	if size <= 0 {
		return nil
	}
	return &cache{
		size:    size,
		bytes:   size * answerShare,
		now:     time.Now,
		byKey:   map[cacheKey]*list.Element{},
		clients: map[string]*shelf{},
	}
}

// get returns an answer whose times to live are what is left of them, or nil.
func (c *cache) get(k cacheKey) *dns.Msg {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	e := c.byKey[k]
	if e == nil {
		c.mu.Unlock()
		return nil
	}
	a, now := e.Value.(*cached), c.now()
	if !now.Before(a.until) {
		c.remove(e)
		c.mu.Unlock()
		return nil
	}
	c.clients[a.client].used.MoveToFront(e)
	c.mu.Unlock()
	m := new(dns.Msg)
	if err := m.Unpack(a.wire); err != nil {
		return nil
	}
	age := uint32(now.Sub(a.stored) / time.Second)
	eachTTL(m, func(ttl *uint32) { *ttl -= min(*ttl, age) })
	return m
}

// put stores an answer that was fetched for a client, if it may be stored.
func (c *cache) put(client string, k cacheKey, m *dns.Msg) {
	if c == nil {
		return
	}
	ttl := lifetime(m)
	if ttl <= 0 {
		return
	}
	wire, err := m.Pack()
	if err != nil || len(wire) > cacheAnswerSize {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[k]; e != nil {
		c.remove(e)
	}
	own := c.clients[client]
	if own == nil {
		own = &shelf{used: list.New()}
		c.clients[client] = own
	}
	now := c.now()
	c.byKey[k] = own.used.PushFront(&cached{k, client, wire, now, now.Add(ttl)})
	own.held += len(wire)
	c.held += len(wire)
	for len(c.byKey) > c.size || c.held > c.bytes {
		c.remove(c.largest(own).used.Back())
	}
}

// largest is the client with the most. own has just got an answer, and is most often it: then the others need not be
// looked through. The caller holds mu.
func (c *cache) largest(own *shelf) *shelf {
	if own.used.Len() > 0 && own.load()*len(c.clients) > 2*len(c.byKey)*answerShare+2*c.held {
		return own // it has more than twice the mean
	}
	var most *shelf
	for _, s := range c.clients {
		if most == nil || s.load() > most.load() {
			most = s
		}
	}
	return most
}

// remove forgets an answer. The caller holds mu.
func (c *cache) remove(e *list.Element) {
	a := e.Value.(*cached)
	s := c.clients[a.client]
	s.used.Remove(e)
	s.held -= len(a.wire)
	if s.used.Len() == 0 {
		delete(c.clients, a.client)
	}
	delete(c.byKey, a.key)
	c.held -= len(a.wire)
}

// clear forgets everything: the servers have changed.
func (c *cache) clear() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byKey)
	clear(c.clients)
	c.held = 0
}

func (c *cache) len() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey)
}

// eachTTL calls f for each time to live in m, which that of the OPT pseudo-record is not (RFC 6891, 6.1.3).
func eachTTL(m *dns.Msg, f func(ttl *uint32)) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				f(&h.Ttl)
			}
		}
	}
}

// lifetime is how long an answer may be kept: as long as its shortest-lived record; one that says "no" as long as the
// zone's SOA record allows, and not at all without that (RFC 2308, 5).
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	shortest := uint32(cacheTTL / time.Second)
	eachTTL(m, func(ttl *uint32) { shortest = min(shortest, *ttl) })
	if m.Rcode == dns.RcodeSuccess && answered(m) {
		return time.Duration(shortest) * time.Second
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(time.Duration(min(shortest, soa.Minttl))*time.Second, cacheNegativeTTL)
		}
	}
	return 0
}

// answered says whether an answer has what was asked for, not only an alias on the way.
func answered(m *dns.Msg) bool {
	for _, rr := range m.Answer {
		if t := rr.Header().Rrtype; len(m.Question) == 1 &&
			(t == m.Question[0].Qtype || m.Question[0].Qtype == dns.TypeANY) {
			return true
		}
	}
	return false
}

// flights lets one query serve all who ask the same meanwhile. A query that comes back to us by way of a server that
// forwards to us joins itself, and ends with its time.
type flights struct {
	mu    sync.Mutex // guards byKey
	byKey map[cacheKey]*flight
}

type flight struct {
	done chan struct{} // closed when answer and err are set
	answer
	err error
}

// do returns what ask returns, called by the first of those who ask for the same key. The answer is shared: not to be
// changed.
func (f *flights) do(ctx context.Context, k cacheKey, ask func() (answer, error)) (answer, error) {
	f.mu.Lock()
	if one := f.byKey[k]; one != nil {
		f.mu.Unlock()
		select {
		case <-one.done:
			return one.answer, one.err
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	one := &flight{done: make(chan struct{})}
	f.byKey[k] = one
	f.mu.Unlock()
	one.answer, one.err = ask()
	f.mu.Lock()
	delete(f.byKey, k)
	f.mu.Unlock()
	close(one.done)
	return one.answer, one.err
}
