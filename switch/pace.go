package vswitch

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A container that sends frames without end has the daemon take as much of the processors as the scheduler gives it,
// and programs of its neighbours wait for theirs. So while others have frames as well, a port's reader takes no more of
// them than a rate, and pauses: the TAP's queue fills up, and the kernel drops what does not fit on the sender's
// account. Alone, it takes all there is.
//
// The rate is in units for each processor that the daemon uses: 50,000 small frames a second, 150,000 of 1500 bytes or
// 75,000 super-frames (5 GB). A flood of small frames then takes some 20 % of a processor where reading one and sending
// it takes 4 µs.
const (
	paceRate  = 150_000
	paceTurn  = 192                   // after a pause so many units may be taken
	paceBurst = 20 * time.Millisecond // what was not taken can be later, for as long as this

	smallFrame = 512 // bytes; shorter frames cost smallUnits, and longer ones a unit, and one more for each unitBytes
	smallUnits = 3
	unitBytes  = 32 << 10

	// contention is for how long others count after their last frame: requests come one after the other.
	contention = 100 * time.Millisecond
)

// activity counts rounds of readers: one wakes, takes what is there, and waits. A reader counts its first round after
// each look of another alone: processors that write to one place wait for each other.
type activity struct {
	looks  atomic.Uint64
	_      [56]byte // on cache lines of their own
	rounds atomic.Uint64
	_      [56]byte
}

// processActivity is that of all networks: they share the processors.
var processActivity activity

// Pacer bounds what the reader of one port takes. It is for one goroutine.
type Pacer struct {
	port  *Port
	all   *activity
	rate  float64 // units a second
	taken int     // units since the last round
	left  float64 // units
	at    time.Time
	until time.Time // others count

	limit  *limiter // nil: the port has none
	looks  uint64   // of all, when a round was counted last
	own    uint64   // rounds that were counted
	others int64    // rounds of others at the last look
}

// Pacer returns one that has its rate from the number of processors that the process uses.
func (p *Port) Pacer() *Pacer {
	c := &Pacer{port: p, all: &processActivity, rate: float64(paceRate * runtime.GOMAXPROCS(0))}
	if l := p.state.Load().cfg.From; l.On() {
		c.limit = newLimiter(l, time.Now())
	}
	return c
}

// limitPause bounds a pause of Limited's, so that a reader that pauses notices that it is to stop.
const limitPause = 50 * time.Millisecond

// Limited returns for how long the reader has to pause before the next frame since the port's own limit is reached. It
// is to be asked again after the pause.
func (c *Pacer) Limited() time.Duration {
	if c.limit == nil {
		return 0
	}
	return min(c.limit.wait(time.Now()), limitPause)
}

// Take counts a frame of so many bytes.
func (c *Pacer) Take(size int) {
	if c.limit != nil {
		c.limit.take(size)
	}
	if size < smallFrame {
		c.taken += smallUnits
	} else {
		c.taken += 1 + size/unitBytes
	}
}

// Round ends a round of frames that were all read into f, and returns for how long the reader has to pause.
func (c *Pacer) Round(f *Frame) time.Duration {
	if looks := c.all.looks.Load(); looks != c.looks && c.taken > 0 {
		c.looks = looks
		c.count(f)
	}
	f.to, f.several = nil, false
	c.left -= float64(c.taken)
	c.taken = 0
	if c.left > 0 {
		return 0
	}
	return c.settle(time.Now())
}

// count shows a round to others.
func (c *Pacer) count(f *Frame) {
	// Frames that a port sends to this one are no reason to pause: replies and acknowledgements. Those of peers count
	// before the total, so that nobody takes them for frames of others.
	if f.to != nil && !f.several {
		f.to.fromPeers.Add(1)
	}
	c.own++
	c.all.rounds.Add(1)
}

// settle fills up what is left, and returns how long that takes when it is not enough and others have frames as well.
func (c *Pacer) settle(now time.Time) time.Duration {
	others := int64(c.all.rounds.Load() - c.own)
	if others -= int64(c.port.fromPeers.Load()); others > c.others {
		c.others, c.until = others, now.Add(contention)
	}
	c.all.looks.Add(1)
	c.left += min(now.Sub(c.at), paceBurst).Seconds() * c.rate
	c.at = now
	switch {
	case c.left > 0:
		return 0
	case now.After(c.until):
		c.left = paceTurn
		return 0
	}
	return time.Duration((paceTurn - c.left) / c.rate * float64(time.Second))
}
