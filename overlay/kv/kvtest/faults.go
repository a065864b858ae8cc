package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

// bound is how long a call may take beyond its context's end, on a machine that has other work.
const bound = 10 * time.Second

// fails makes a call that has to fail, soon.
func fails(t *testing.T, s kv.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	began := time.Now()
	_, err := s.Get(ctx, "hosts/a")
	if err == nil || errors.Is(err, kv.ErrNotFound) {
		t.Errorf("Get without a server: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second+bound {
		t.Errorf("Get without a server took %v", took)
	}
}

func testKilled(t *testing.T, target Target) {
	s, other := target.open(t), target.open(t)
	put(t, s, "hosts/a", "before", kv.Whatever, nil)
	r := watch(t, other)
	target.Kill(t)
	fails(t, s)
	target.Start(t)
	retry(t, "Get after the start", func(ctx context.Context) error {
		p, err := s.Get(ctx, "hosts/a")
		if err == nil && string(p.Value) != "before" {
			t.Fatalf("the key is %q", p.Value)
		}
		return err
	})
	retry(t, "Put after the start", func(ctx context.Context) error {
		return s.Put(ctx, "hosts/a", []byte("after"), kv.Whatever, nil)
	})
	r.waitFor(t, "hosts/a", "after")
}

func testHangs(t *testing.T, target Target) {
	s := target.open(t)
	put(t, s, "hosts/a", "before", kv.Whatever, nil)
	target.Hang(t)
	fails(t, s)
	target.Resume(t)
	retry(t, "Get after the pause", func(ctx context.Context) error { _, err := s.Get(ctx, "hosts/a"); return err })
}

// follower is a backend's replica.
type follower struct {
	mu      sync.Mutex // guards what follows
	rows    map[string]table.Row
	errs    []error
	synced  int // lists
	rewound int
}

// follow makes a backend of a host and reads its watch until the test ends.
func follow(t *testing.T, s kv.Store, host overlay.HostID, ttl time.Duration) (*kv.Backend, *follower) {
	t.Helper()
	b := kv.New(s, kv.Config{URL: "test", Host: host, Incarnation: 1, AliveTTL: ttl})
	f := &follower{rows: map[string]table.Row{}}
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() {
		for e, err := range b.Watch(ctx) {
			f.take(e, err)
		}
	})
	t.Cleanup(func() {
		cancel()
		reader.Wait()
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b, f
}

func (f *follower) take(e table.Event, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		f.errs = append(f.errs, err)
	case e.Kind == table.EventReset:
		clear(f.rows)
		if e.Rewound {
			f.rewound++
		}
	case e.Kind == table.EventSynced:
		f.synced++
	case e.Row.Deleted:
		delete(f.rows, e.Row.Key)
	default:
		f.rows[e.Row.Key] = e.Row
	}
}

func (f *follower) has(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, is := f.rows[key]
	return is
}

func (f *follower) counts() (synced, errs, rewound int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced, len(f.errs), f.rewound
}

func testBackendHeals(t *testing.T, target Target) {
	a, b := overlay.NewHostID(), overlay.NewHostID()
	ba, fa := follow(t, target.Open(t), a, target.MinTTL)
	_, fb := follow(t, target.Open(t), b, target.MinTTL)
	for _, f := range []*follower{fa, fb} {
		until(
			t,
			"both hosts are alive",
			func() bool { return f.has(overlay.AliveKey(a)) && f.has(overlay.AliveKey(b)) },
		)
	}
	before, _, _ := fa.counts()
	target.Kill(t)
	until(t, "an error in the watch", func() bool { _, errs, _ := fa.counts(); return errs > 0 })
	if h := ba.Health(); h.Connected || h.Err == nil {
		t.Errorf("health without a server: %+v", h)
	}
	began := time.Now()
	err := ba.Put(
		t.Context(),
		table.Row{Key: overlay.HostKey(a), Value: []byte("{}"), Owner: a, Incarnation: 1, Version: 1},
	)
	var unavailable *table.UnavailableError
	if !errors.As(err, &unavailable) {
		t.Errorf("Put without a server: %v", err)
	}
	if took := time.Since(began); took > table.CallTimeout+bound {
		t.Errorf("Put without a server took %v", took)
	}
	target.Start(t)
	until(t, "a new list", func() bool { synced, _, _ := fa.counts(); return synced > before })
	retry(t, "Put after the start", func(ctx context.Context) error {
		return ba.Put(
			ctx,
			table.Row{Key: overlay.HostKey(a), Value: []byte("{}"), Owner: a, Incarnation: 1, Version: 1},
		)
	})
	until(t, "the other host sees the row, and both alive", func() bool {
		return fb.has(overlay.HostKey(a)) && fb.has(overlay.AliveKey(a)) && fb.has(overlay.AliveKey(b)) &&
			fa.has(overlay.AliveKey(b))
	})
	until(t, "it is connected", func() bool { return ba.Health().Connected })
}

func testRestored(t *testing.T, target Target) {
	a := overlay.NewHostID()
	ba, fa := follow(t, target.Open(t), a, target.MinTTL)
	row := func(key string) table.Row {
		return table.Row{Key: key, Value: []byte("{}"), Owner: a, Incarnation: 1, Version: 1}
	}
	until(t, "the host is alive", func() bool { return fa.has(overlay.AliveKey(a)) })
	retry(t, "Put", func(ctx context.Context) error { return ba.Put(ctx, row("hosts/early")) })
	target.Backup(t)
	// A server writes for itself when it starts, some ten times, and its revisions go on from there: a backup that
	// lacks less than that looks like no older state.
	for i := range 40 {
		retry(t, "Put", func(ctx context.Context) error { return ba.Put(ctx, row(fmt.Sprintf("hosts/l%d", i))) })
	}
	retry(t, "Put", func(ctx context.Context) error { return ba.Put(ctx, row("hosts/late")) })
	// The state that the host saw last is that of a list.
	until(t, "the last row", func() bool { return fa.has("hosts/late") })
	target.Restore(t)
	until(
		t,
		"the host is told that the store is older",
		func() bool { _, _, rewound := fa.counts(); return rewound > 0 },
	)
	until(t, "the row that the backup has", func() bool { return fa.has("hosts/early") })
	if fa.has("hosts/late") {
		t.Error("the row that the backup lacks is there")
	}
	until(t, "the host is alive again", func() bool { return fa.has(overlay.AliveKey(a)) })
}
