// Package rate bounds how often something happens: a token bucket.
package rate

import "time"

// Bucket lets Burst events happen at once, and PerSecond for as long as one likes. Its owner guards it.
type Bucket struct {
	PerSecond, Burst float64

	used float64 // tokens that are missing; 0: the bucket is full, as the zero value is
	at   time.Time
}

// Allow takes n tokens and says whether there were so many. now never goes back.
func (b *Bucket) Allow(now time.Time, n float64) bool {
	b.fill(now)
	if b.used+n > b.Burst {
		return false
	}
	b.used += n
	return true
}

// Refund gives back n tokens that were taken.
func (b *Bucket) Refund(n float64) { b.used = max(0, b.used-n) }

// Full says whether nothing is missing.
func (b *Bucket) Full(now time.Time) bool {
	b.fill(now)
	return b.used == 0
}

func (b *Bucket) fill(now time.Time) {
	if !b.at.IsZero() {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*b.PerSecond)
	}
	b.at = now
}
