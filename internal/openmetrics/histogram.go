package openmetrics

import (
	"sync/atomic"
	"time"
)

// bounds are the upper bounds of a histogram's buckets: from what a machine does at once to what people give up at.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Histogram counts durations. The zero value is empty. Its methods may be called by many goroutines at once; Observe
// neither locks nor allocates.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // the last one: longer than all bounds
	sum     atomic.Int64                   // nanoseconds
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Durations are what a histogram has counted.
type Durations struct {
	Buckets [len(bounds) + 1]uint64
	Sum     time.Duration
}

// Load returns the counts. What is observed meanwhile may be in the counts and not yet in the sum.
func (h *Histogram) Load() (d Durations) {
	d.Sum = time.Duration(h.sum.Load())
	for i := range h.buckets {
		d.Buckets[i] = h.buckets[i].Load()
	}
	return d
}
