package dns

import "sync"

// quota divides a number of slots among clients, so that none of them can hold what leaves no room for the others.
//
// A client gets one more slot only while it holds fewer than are free. So n clients that want all they can get end with
// total/(n+1) each, and as many stay free for the next one: a dynamic threshold, as switches share their buffers (Choudhury
// and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). No slot is taken away from a client that has it.
type quota struct {
	perClient, total int // never more than these

	mu    sync.Mutex
	held  map[string]int // by client; no entry: none
	inUse int            // the sum of held
}

func newQuota(perClient, total int) *quota {
	return &quota{perClient: perClient, total: total, held: map[string]int{}}
}

// acquire gives client one more slot and says whether it could. It does not wait.
func (q *quota) acquire(client string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	held, free := q.held[client], q.total-q.inUse
	if held >= q.perClient || held >= free {
		return false
	}
	q.held[client]++
	q.inUse++
	return true
}

// release returns a slot that acquire gave.
func (q *quota) release(client string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inUse--
	if q.held[client]--; q.held[client] == 0 {
		delete(q.held, client)
	}
}

// used is how many slots are held.
func (q *quota) used() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inUse
}
