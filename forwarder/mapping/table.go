package mapping

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/usernet/usernet/internal/watchdog"
)

// Entry is a mapping of some kind: a struct that embeds Mapping.
type Entry interface {
	Base() *Mapping
	// Close gives back what the mapping holds, such as its socket. It is called once, when the mapping is in no table
	// any more but still counts to its container's limit, or when it came into none.
	Close()
}

// Limiter counts the mappings of containers. It is called with no lock held.
type Limiter interface {
	// Acquire counts one more of the container at an address. False: it has as many as it may, or all together have.
	Acquire(owner netip.Addr) bool
	Release(owner netip.Addr)
}

// Config says what a table is of.
type Config struct {
	Limiter   Limiter
	Lifetimes Lifetimes
}

// Table has the mappings of one kind of a network, by their keys.
type Table[K comparable, M interface {
	comparable
	Entry
}] struct {
	cfg    Config
	queues queues

	// Guarded by queues.mu.
	entries  map[K]M
	keys     map[M]K
	sweeping *time.Timer // ends what has expired; nil: there is nothing that could
	closed   bool
}

// New makes an empty table. Close ends it.
func New[K comparable, M interface {
	comparable
	Entry
}](cfg Config) *Table[K, M] {
	t := &Table[K, M]{cfg: cfg, entries: map[K]M{}, keys: map[M]K{}}
	t.queues.each = map[netip.Addr]*queue{}
	return t
}

// Lock is what has to be watched for hanging.
func (t *Table[K, M]) Lock(name string) watchdog.Lock {
	return watchdog.Mutex(name, &t.queues.mu, 0)
}

// Get returns the mapping with a key, the zero value where there is none.
func (t *Table[K, M]) Get(k K) M {
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	return t.entries[k]
}

// Len is how many mappings there are.
func (t *Table[K, M]) Len() int {
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	return len(t.entries)
}

// All are the mappings as they are now.
func (t *Table[K, M]) All() []M {
	t.queues.mu.Lock() // for no longer than a copy takes: each packet may need it
	defer t.queues.mu.Unlock()
	return slices.Collect(maps.Values(t.entries))
}

// ErrLimit says that a container has as many mappings as it may.
var ErrLimit = errors.New("as many mappings as there may be")

// Make returns the mapping with a key, and makes it with open where there is none: made says so. The owner is the
// container's address.
func (t *Table[K, M]) Make(k K, owner netip.Addr, open func() (M, error)) (m M, made bool, err error) {
	return t.MakeFree(owner, func(m M, try int) (K, bool) { return k, try == 0 }, open)
}

// MakeFree makes a mapping with open, with the first key that key returns which no other has. key is called with try 0,
// 1, ..., until it returns false: then the mapping with the last key is returned, and the new one was closed. With an
// error there is none.
func (t *Table[K, M]) MakeFree(
	owner netip.Addr, key func(m M, try int) (K, bool), open func() (M, error),
) (m M, made bool, err error) {
	var none M
	if !t.admit(owner) {
		return none, false, ErrLimit
	}
	m, err = open()
	if err != nil {
		t.cfg.Limiter.Release(owner)
		return none, false, err
	}
	b := m.Base()
	b.owner, b.created, b.queues = owner, time.Now(), &t.queues
	b.Used()
	other, inserted := t.insert(m, key)
	if inserted {
		return m, true, nil
	}
	m.Close()
	t.cfg.Limiter.Release(owner)
	if other == none {
		return none, false, os.ErrClosed
	}
	return other, false, nil
}

// insert gives a mapping its place in the table. False: the table is closed, or another has the last key.
func (t *Table[K, M]) insert(m M, key func(m M, try int) (K, bool)) (other M, ok bool) {
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	if t.closed {
		return other, false
	}
	for try := 0; ; try++ {
		k, ok := key(m, try)
		if !ok {
			return other, false
		}
		var taken bool
		if other, taken = t.entries[k]; taken {
			continue
		}
		t.entries[k], t.keys[m] = m, k
		t.queues.addLocked(m)
		t.sweepLaterLocked()
		return m, true
	}
}

// admits is how many mappings are given up for one newcomer at most: others may take the room that was made.
const admits = 4

// admit counts one more mapping of a container. Where it has as many as it may, the one that needs it least is given
// up: never the newcomer, or one client that filled the table once would keep all others out.
func (t *Table[K, M]) admit(owner netip.Addr) bool {
	for range admits {
		if t.cfg.Limiter.Acquire(owner) {
			return true
		}
		if !t.GiveUp(owner) {
			return false
		}
	}
	return false
}

// GiveUp ends the mapping of a container that it needs least. False: it has none.
func (t *Table[K, M]) GiveUp(owner netip.Addr) bool {
	t.queues.mu.Lock()
	var oldest Entry
	if q := t.queues.each[owner]; q != nil && !t.closed {
		oldest = q.oldest()
	}
	t.queues.mu.Unlock()
	if oldest == nil {
		return false
	}
	t.End(oldest.(M))
	return true
}

// End ends a mapping. Ending it again does nothing.
func (t *Table[K, M]) End(m M) {
	b := m.Base()
	t.queues.mu.Lock()
	k, live := t.keys[m]
	if live {
		delete(t.entries, k)
		delete(t.keys, m)
		t.queues.removeLocked(b)
	}
	t.queues.mu.Unlock()
	if live {
		m.Close() // what it had may be another's when it is closed, not before
		t.cfg.Limiter.Release(b.owner)
	}
}

// EndAll ends the mappings that match.
func (t *Table[K, M]) EndAll(match func(M) bool) {
	for _, m := range t.All() {
		if match(m) {
			t.End(m)
		}
	}
}

// EndOf ends the mappings of the container at an address. It looks at no others.
func (t *Table[K, M]) EndOf(owner netip.Addr) {
	for _, e := range t.queues.of(owner) {
		t.End(e.(M))
	}
}

// Close ends all mappings, and none is made from here on. Closing again does nothing.
func (t *Table[K, M]) Close() {
	t.queues.mu.Lock()
	t.closed = true
	if t.sweeping != nil {
		t.sweeping.Stop()
	}
	t.queues.mu.Unlock()
	t.EndAll(func(M) bool { return true })
}

// sweepInterval is how often expired mappings are looked for: what is kept is kept that much longer at most.
const sweepInterval = 5 * time.Second

// sweepLaterLocked arranges for expired mappings to be ended. Nothing runs while there are none. The caller holds
// queues.mu.
func (t *Table[K, M]) sweepLaterLocked() {
	if t.sweeping == nil && !t.closed {
		t.sweeping = time.AfterFunc(sweepInterval, t.sweep) // which Close stops
	}
}

// sweep ends what has expired.
func (t *Table[K, M]) sweep() {
	for _, e := range t.queues.expired(t.cfg.Lifetimes, clock()) {
		t.End(e.(M))
	}
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	t.sweeping = nil
	if len(t.entries) > 0 {
		t.sweepLaterLocked()
	}
}
