package rate

import (
	"testing"
	"time"
)

// TestKeyed has more keys than the table has room for, before and after the first of them are idle.
func TestKeyed(t *testing.T) {
	looks := 0
	table := Keyed[int, Bucket]{
		Max:  100,
		New:  func() *Bucket { return &Bucket{PerSecond: 1, Burst: 2} },
		Idle: func(b *Bucket, now time.Time) bool { looks++; return b.Full(now) },
	}
	now := time.Unix(1000, 0)
	for k := range 100 {
		if b := table.Of(k, now); !b.Allow(now, 1) || b != table.Of(k, now) {
			t.Fatalf("key %d has not one bucket of its own", k)
		}
	}
	rest := table.Of(100, now)
	if rest != table.Of(101, now) || rest == table.Of(0, now) || table.Len() != 100 {
		t.Errorf("%d keys have a bucket of their own, those beyond share none", table.Len())
	}
	if !rest.Allow(now, 2) || rest.Allow(now, 1) {
		t.Error("what is shared does not begin as what New returned")
	}
	for k := range 1000 {
		table.Of(200+k, now)
	}
	if looks > 100 {
		t.Errorf("a flood of keys in one second looks %d times for what is idle", looks)
	}
	now = now.Add(time.Minute)
	table.Of(0, now).Allow(now, 1)
	own := table.Of(100, now)
	if own == rest || table.Of(100, now) != own || table.Len() != 2 {
		t.Errorf("a minute later %d keys have a bucket of their own, want the one that is used and a new one", table.Len())
	}
}
