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
	for i, set := range []bool{q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData, q.IsEdns0() != nil && q.IsEdns0().Do()} {
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

// cache keeps answers until their time is over, the least recently used give way to new ones. A nil cache keeps nothing.
type cache struct {
	size  int // answers
	bytes int // of all answers as they are on the wire

	mu    sync.Mutex
	now   func() time.Time
	byKey map[cacheKey]*list.Element
	used  *list.List // of *cached, the last used first
	held  int        // bytes
}

type cached struct {
	key           cacheKey
	wire          []byte
	stored, until time.Time
}

// newCache makes a cache of size answers; of 0 or less, none.
func newCache(size int) *cache {
	if size <= 0 {
		return nil
	}
	return &cache{size: size, bytes: size * 512, now: time.Now, byKey: map[cacheKey]*list.Element{}, used: list.New()}
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
	c.used.MoveToFront(e)
	c.mu.Unlock()
	m := new(dns.Msg)
	if err := m.Unpack(a.wire); err != nil {
		return nil
	}
	age := uint32(now.Sub(a.stored) / time.Second)
	eachTTL(m, func(ttl *uint32) { *ttl -= min(*ttl, age) })
	return m
}

// put keeps an answer, if it may be kept.
func (c *cache) put(k cacheKey, m *dns.Msg) {
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
	now := c.now()
	c.byKey[k] = c.used.PushFront(&cached{k, wire, now, now.Add(ttl)})
	c.held += len(wire)
	for c.used.Len() > c.size || c.held > c.bytes {
		c.remove(c.used.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	a := c.used.Remove(e).(*cached)
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
	c.used.Init()
	c.held = 0
}

func (c *cache) len() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used.Len()
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
		if t := rr.Header().Rrtype; len(m.Question) == 1 && (t == m.Question[0].Qtype || m.Question[0].Qtype == dns.TypeANY) {
			return true
		}
	}
	return false
}

// flights lets one query serve all who ask the same meanwhile. A query that comes back to us by way of a server that
// forwards to us joins itself, and ends with its time.
type flights struct {
	mu  sync.Mutex
	now map[cacheKey]*flight
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
	if one := f.now[k]; one != nil {
		f.mu.Unlock()
		select {
		case <-one.done:
			return one.answer, one.err
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	one := &flight{done: make(chan struct{})}
	f.now[k] = one
	f.mu.Unlock()
	one.answer, one.err = ask()
	f.mu.Lock()
	delete(f.now, k)
	f.mu.Unlock()
	close(one.done)
	return one.answer, one.err
}
