package kvtest

import (
	"context"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

func lease(t *testing.T, s kv.Store, ttl time.Duration) kv.Lease {
	t.Helper()
	var l kv.Lease
	retry(t, "lease", func(ctx context.Context) (err error) {
		l, err = s.Lease(ctx, ttl)
		return err
	})
	return l
}

func testRevoke(t *testing.T, target Target) {
	s, other := target.open(t), target.open(t)
	r := watch(t, other)
	l := lease(t, s, target.MinTTL)
	if err := s.Put(testCtx(t), "alive/a", []byte("1"), kv.Absent, l); err != nil {
		t.Fatal(err)
	}
	put(t, s, "hosts/a", "stays", kv.Absent, nil)
	r.waitFor(t, "alive/a", "1")
	if err := l.Revoke(testCtx(t)); err != nil {
		t.Fatal(err)
	}
	r.waitGone(t, "alive/a")
	select {
	case <-l.Lost():
	case <-time.After(Patience):
		t.Error("a revoked lease is not lost")
	}
	get(t, other, "hosts/a", "stays")
	if err := absent(testCtx(t), other, "alive/a"); err != nil {
		t.Error(err)
	}
	// The next lease is another one.
	again := lease(t, s, target.MinTTL)
	if err := s.Put(testCtx(t), "alive/a", []byte("2"), kv.Absent, again); err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, "alive/a", "2")
}

func testExpiry(t *testing.T, target Target) {
	s, other := target.Open(t), target.open(t)
	r := watch(t, other)
	l := lease(t, s, target.MinTTL)
	if err := s.Put(testCtx(t), "alive/a", []byte("1"), kv.Absent, l); err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, "alive/a", "1")
	// It is kept alive for longer than it would live by itself.
	for end := time.Now().Add(2 * target.MinTTL); time.Now().Before(end); time.Sleep(target.MinTTL / 20) {
		select {
		case <-l.Lost():
			t.Fatal("the lease is lost while its process is there")
		default:
		}
	}
	if v, is := r.value("alive/a"); !is || v != "1" {
		t.Fatal("the key went while the lease was kept alive")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.waitGone(t, "alive/a")
}

func testTakenOver(t *testing.T, target Target) {
	s, other := target.open(t), target.open(t)
	first, second := lease(t, s, target.MinTTL), lease(t, other, target.MinTTL)
	if err := s.Put(testCtx(t), "alive/a", []byte("1"), kv.Absent, first); err != nil {
		t.Fatal(err)
	}
	if err := other.Put(testCtx(t), "alive/a", []byte("2"), kv.Whatever, second); err != nil {
		t.Fatal(err)
	}
	if err := first.Revoke(testCtx(t)); err != nil {
		t.Fatal(err)
	}
	get(t, other, "alive/a", "2")
	if err := second.Revoke(testCtx(t)); err != nil {
		t.Fatal(err)
	}
	if err := absent(testCtx(t), s, "alive/a"); err != nil {
		t.Fatal(err)
	}
}
