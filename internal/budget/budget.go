// Package budget divides an amount (descriptors, bytes of memory) among clients, so that none of them can hold what
// leaves no room for the others.
//
// A client gets more only while it would hold no more than stays free. So n clients that want all they can get end with
// total/(n+1) each, and as much stays free for the next one: a dynamic threshold, as switches share their buffers
// (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). One client alone gets half, and of a
// total of 1 the one. Nothing is taken away from a client that has it.
package budget

import "sync"

// Budget is an amount that is divided. Make it with New. Its methods may be called by many goroutines at once.
type Budget struct {
	perClient, total int64

	clients struct {
		sync.Mutex
		held map[string]int64 // no entry: nothing
		sum  int64            // of held
	}
}

// New makes a budget of total, of which one client never gets more than perClient. 0 does not limit.
func New(perClient, total int64) *Budget {
	b := &Budget{perClient: perClient, total: total}
	b.clients.held = map[string]int64{}
	return b
}

// Acquire gives client n more and says whether it could. It does not wait.
func (b *Budget) Acquire(client string, n int64) bool { return b.acquire(client, n, 1, b.free) }

// AcquireUpTo is Acquire for what is of less use: only up to a share of what the client may hold, 1/parts of it.
func (b *Budget) AcquireUpTo(client string, n, parts int64) bool {
	return b.acquire(client, n, parts, b.free)
}

// AcquireWithin is Acquire where no more than most is free, since others use it who are not counted here.
func (b *Budget) AcquireWithin(client string, n, most int64) bool {
	return b.acquire(client, n, 1, func() (int64, bool) {
		if free, limited := b.free(); limited {
			return min(free, most), true
		}
		return most, true
	})
}

// Allows says whether Acquire would give client n more now.
func (b *Budget) Allows(client string, n int64) bool {
	b.clients.Lock()
	defer b.clients.Unlock()
	return b.fits(client, n, 1, b.free)
}

// free is how much nobody holds, and whether there is a total. The caller holds b.clients.
func (b *Budget) free() (int64, bool) { return b.total - b.clients.sum, b.total > 0 }

func (b *Budget) acquire(client string, n, parts int64, free func() (int64, bool)) bool {
	b.clients.Lock()
	defer b.clients.Unlock()
	if !b.fits(client, n, parts, free) {
		return false
	}
	b.clients.held[client] += n
	b.clients.sum += n
	return true
}

// fits is the rule. The caller holds b.clients.
func (b *Budget) fits(client string, n, parts int64, free func() (int64, bool)) bool {
	held := b.clients.held[client] + n
	if b.perClient > 0 && held > b.perClient/parts {
		return false
	}
	f, limited := free()
	// The first one is given, so that a total of 1 is of use.
	return !limited || held*parts <= f-n || b.clients.sum == 0 && n == 1 && f >= 1
}

// Release gives back n of what client holds.
func (b *Budget) Release(client string, n int64) {
	b.clients.Lock()
	defer b.clients.Unlock()
	b.clients.sum -= n
	if b.clients.held[client] -= n; b.clients.held[client] <= 0 {
		delete(b.clients.held, client)
	}
}

// Total is what is divided; 0: no limit.
func (b *Budget) Total() int64 { return b.total }

// PerClient is what one client gets at most; 0: no limit.
func (b *Budget) PerClient() int64 { return b.perClient }

// Used is what all clients hold.
func (b *Budget) Used() int64 {
	b.clients.Lock()
	defer b.clients.Unlock()
	return b.clients.sum
}
