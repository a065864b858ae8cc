package kvtest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// replica is what a watch makes of a store.
type replica struct {
	mu     sync.Mutex // guards what follows
	keys   map[string]string
	lists  int
	errs   []error
	events []kv.Event
	gate   chan struct{} // the reader waits for it before each event, where it is not nil
}

// watch follows a store until the test ends, and calls Watch again whenever it ended.
func watch(t *testing.T, s kv.Store) *replica { return watchGated(t, s, nil) }

func watchGated(t *testing.T, s kv.Store, gate chan struct{}) *replica {
	t.Helper()
	r := &replica{keys: map[string]string{}, gate: gate}
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			for e, err := range s.Watch(ctx) {
				r.take(ctx, e, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		reader.Wait()
	})
	until(t, "a list", func() bool { return r.listed() > 0 })
	return r
}

func (r *replica) take(ctx context.Context, e kv.Event, err error) {
	if r.gate != nil && err == nil && e.Kind != kv.EventList {
		select {
		case <-r.gate:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
		return
	}
	switch e.Kind {
	case kv.EventList:
		clear(r.keys)
		for _, p := range e.List {
			r.keys[p.Key] = string(p.Value)
		}
		r.lists++
	case kv.EventPut:
		r.keys[e.Pair.Key] = string(e.Pair.Value)
	case kv.EventDelete:
		delete(r.keys, e.Pair.Key)
	}
	r.events = append(r.events, e)
}

func (r *replica) listed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

func (r *replica) value(key string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, is := r.keys[key]
	return v, is
}

func (r *replica) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d lists, errors %v, keys %.500q", r.lists, r.errs, r.keys)
}

func (r *replica) waitFor(t *testing.T, key, want string) {
	t.Helper()
	until(
		t,
		fmt.Sprintf("%.60q is %.60q in %v", key, want, r),
		func() bool { v, is := r.value(key); return is && v == want },
	)
}

func (r *replica) waitGone(t *testing.T, key string) {
	t.Helper()
	until(t, fmt.Sprintf("%q is gone in %v", key, r), func() bool { _, is := r.value(key); return !is })
}

func testWatch(t *testing.T, target Target) {
	s, other := target.open(t), target.open(t)
	put(t, s, "hosts/a", "1", kv.Absent, nil)
	put(t, s, "eps/n/10.0.0.1", "1", kv.Absent, nil)
	r := watch(t, other)
	r.waitFor(t, "hosts/a", "1")
	r.waitFor(t, "eps/n/10.0.0.1", "1")

	put(t, s, "hosts/a", "2", kv.Whatever, nil)
	r.waitFor(t, "hosts/a", "2")
	put(t, s, "eps/m/10.0.0.1", "1", kv.Absent, nil) // a part that was not there before
	r.waitFor(t, "eps/m/10.0.0.1", "1")
	if err := s.Delete(testCtx(t), "eps/n/10.0.0.1", kv.Whatever); err != nil {
		t.Fatal(err)
	}
	r.waitGone(t, "eps/n/10.0.0.1")
	put(t, s, "eps/n/10.0.0.1", "again", kv.Absent, nil)
	r.waitFor(t, "eps/n/10.0.0.1", "again")
	if n := r.listed(); n != 1 {
		t.Errorf("%d lists where one was enough: %v", n, r)
	}
}

func testSlowReader(t *testing.T, target Target) {
	const keys, rounds = 20, 5
	s := target.open(t)
	gate := make(chan struct{})
	r := watchGated(t, target.open(t), gate)
	for round := range rounds {
		for k := range keys {
			put(t, s, "hosts/"+strconv.Itoa(k), strconv.Itoa(round), kv.Whatever, nil)
		}
	}
	if err := s.Delete(testCtx(t), "hosts/0", kv.Whatever); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for k := 1; k < keys; k++ {
		r.waitFor(t, "hosts/"+strconv.Itoa(k), strconv.Itoa(rounds-1))
	}
	r.waitGone(t, "hosts/0")
	// What one key was comes in its order; not all of it has to come.
	r.mu.Lock()
	defer r.mu.Unlock()
	last := map[string]int{}
	for _, e := range r.events {
		if e.Kind != kv.EventPut {
			continue
		}
		n, _ := strconv.Atoi(string(e.Pair.Value))
		if n < last[e.Pair.Key] {
			t.Errorf("%s went back from %d to %d", e.Pair.Key, last[e.Pair.Key], n)
		}
		last[e.Pair.Key] = n
	}
}

func testCompaction(t *testing.T, target Target) {
	s := target.open(t)
	r := watch(t, target.open(t))
	for i := range 20 {
		put(t, s, "hosts/a", strconv.Itoa(i), kv.Whatever, nil)
	}
	target.Compact(t)
	put(t, s, "hosts/a", "after", kv.Whatever, nil)
	r.waitFor(t, "hosts/a", "after")
	put(t, s, "hosts/b", "later", kv.Whatever, nil)
	r.waitFor(t, "hosts/b", "later")
}
