package mapping

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestQueueOrder holds the order in which mappings are given up against a look at each of them, with random histories.
func TestQueueOrder(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		q, now := new(queue), clock()
		tick := func() int64 { now++; return now }
		var unanswered, answered []*fakeMapping // as they are queued
		for step := range 500 {
			live := append(slices.Clone(unanswered), answered...)
			switch action := r.IntN(6); {
			case action < 2 || len(live) == 0:
				m := new(fakeMapping)
				q.add(m, m.Base())
				unanswered = append(unanswered, m)
				m.last.Store(m.queued)
			case action == 2 && len(unanswered) > 0: // it is answered
				i := r.IntN(len(unanswered))
				m := unanswered[i]
				unanswered = slices.Delete(unanswered, i, i+1)
				q.promote(m.Base())
				m.last.Store(m.queued)
				answered = append(answered, m)
			case action == 3: // it is used, long after it was queued
				m := live[r.IntN(len(live))]
				m.last.Store(clock() + int64(time.Hour) + tick())
			case action == 4: // it ends
				m := live[r.IntN(len(live))]
				q.remove(m.Base())
				same := func(o *fakeMapping) bool { return o == m }
				unanswered, answered = slices.DeleteFunc(unanswered, same), slices.DeleteFunc(answered, same)
			default: // one is given up
				got := q.oldest()
				var want *fakeMapping
				if len(unanswered) > 0 {
					want, unanswered = unanswered[0], unanswered[1:]
				} else {
					i := slices.IndexFunc(answered, func(m *fakeMapping) bool { return m.last.Load() <= m.queued })
					if i < 0 {
						i = 0 // all were used, and each has had its turn
					} else {
						answered = append(answered[i:], answered[:i]...)
						i = 0
					}
					want, answered = answered[0], answered[1:]
				}
				if got != Entry(want) {
					t.Fatalf("seed %d, step %d: another one is given up than the oldest", seed, step)
				}
			}
		}
		for range len(unanswered) + len(answered) {
			if q.oldest() == nil {
				t.Fatalf("seed %d: one is missing", seed)
			}
		}
		if !q.empty() || q.oldest() != nil {
			t.Fatalf("seed %d: one is left", seed)
		}
	}
}
