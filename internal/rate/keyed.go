package rate

import "time"

// Keyed is a bounded table of what is counted by key: by address, say, of which a sender may use any number. Each of
// the first keys has a V of its own; those beyond Max share one, until some of the others are idle. Its owner guards
// it.
type Keyed[K comparable, V any] struct {
	// Max is how many keys have a V of their own.
	Max int
	// New returns what a key begins with, which is also what the keys beyond Max share.
	New func() *V
	// Idle says whether V is as New returned it, so that nothing is lost when it is forgotten.
	Idle func(v *V, now time.Time) bool

	by     map[K]*V
	rest   *V
	tidied time.Time // when idle ones were last looked for
}

// Of returns what a key has. It stays the key's for as long as it is not idle. now never goes back.
func (t *Keyed[K, V]) Of(k K, now time.Time) *V {
	if v := t.by[k]; v != nil {
		return v
	}
	if len(t.by) >= t.Max && now.Sub(t.tidied) > time.Second { // not for each event of a flood
		t.tidied = now
		for k, v := range t.by {
			if t.Idle(v, now) {
				delete(t.by, k)
			}
		}
	}
	if len(t.by) >= t.Max {
		if t.rest == nil {
			t.rest = t.New()
		}
		return t.rest
	}
	if t.by == nil {
		t.by = map[K]*V{}
	}
	v := t.New()
	t.by[k] = v
	return v
}

// Len is how many keys have a V of their own.
func (t *Keyed[K, V]) Len() int { return len(t.by) }
