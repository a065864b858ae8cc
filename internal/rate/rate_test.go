package rate

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	start := time.Unix(1000, 0)
	b := Bucket{PerSecond: 10, Burst: 5}
	allowed := func(after time.Duration, tries int) (n int) {
		for range tries {
			if b.Allow(start.Add(after), 1) {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		after       time.Duration
		tries, want int
	}{
		{0, 10, 5}, // the burst
		{0, 10, 0},
		{100 * time.Millisecond, 10, 1},
		{time.Second, 100, 5}, // no more than the burst is saved
		{time.Second + 200*time.Millisecond, 100, 2},
	} {
		if got := allowed(step.after, step.tries); got != step.want {
			t.Errorf("after %s: %d, want %d", step.after, got, step.want)
		}
	}
	b.Refund(3)
	if got := allowed(1200*time.Millisecond, 10); got != 3 {
		t.Errorf("after a refund of 3: %d", got)
	}
	if b.Full(start.Add(1200 * time.Millisecond)) {
		t.Error("an empty bucket is full")
	}
	if !b.Full(start.Add(time.Minute)) {
		t.Error("it does not fill")
	}
	b.Refund(100)
	if got := allowed(time.Minute, 100); got != 5 {
		t.Errorf("a refund beyond the burst allows %d", got)
	}
	if b.Allow(start.Add(time.Hour), 6) {
		t.Error("more than the burst at once")
	}
}
