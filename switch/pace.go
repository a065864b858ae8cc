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
// The rate is in units, for each processor that the daemon uses. Super-frames count by their size: 75,000 a second
// (5 GB). What a shorter frame takes depends on where it goes: one that the gateway refuses or that goes to many ports
// takes ten times what one takes that is only passed on. So these count by the time that the reader needed for them
// after its last pauses, and take a tenth of a processor.
const (
	paceRate  = 150_000               // units a second
	paceTurn  = 192                   // after a pause so many units may be taken
	paceBurst = 20 * time.Millisecond // what was not taken can be later, for as long as this
	unitTime  = time.Second / 10 / paceRate

	smallFrame   = 512 // bytes; shorter frames come in great numbers: they count smallUnits at least
	smallUnits   = 3
	measuredSize = 2 << 10 // bytes; these and longer ones cost a unit, and one more for each unitBytes
	unitBytes    = 32 << 10

	mostUnits      = 32 // of a measured frame: the time has the reader's waits for a processor in it as well
	measuredFrames = 32 // taken without a pause or a wait between them tell how long one takes
	averagedTurns  = 8
	measuringPause = time.Microsecond // what is not held by the rate is measured as often as contention is long

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

	measured time.Time // when there was a pause last in order to measure
	resumed  time.Time // the end of the last pause; zero when the round after it has been measured
	frames   int       // since then
	average  float64   // units of a frame, as measured; 0: not yet
	small    int       // units of a frame that is shorter than smallFrame
	other    int       // units of one that is not, but shorter than measuredSize

	limit  *limiter // nil: the port has none
	looks  uint64   // of all, when a round was counted last
	own    uint64   // rounds that were counted
	others int64    // rounds of others at the last look
}

// Pacer returns one that has its rate from the number of processors that the process uses while nobody floods.
func (p *Port) Pacer() *Pacer {
	processors := int(narrow.Load())
	if processors == 0 {
		processors = runtime.GOMAXPROCS(0)
	}
	c := &Pacer{
		port:  p,
		all:   &processActivity,
		rate:  float64(paceRate * processors),
		small: smallUnits,
		other: 1,
	}
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
	c.frames++
	switch {
	case size < smallFrame:
		c.taken += c.small
	case size < measuredSize:
		c.taken += c.other
	default:
		c.taken += 1 + size/unitBytes
		c.resumed = time.Time{} // what such a frame takes is known
	}
}

// Pause waits for as long as Round said.
func (c *Pacer) Pause(d time.Duration) {
	time.Sleep(d)
	c.resumed, c.frames = time.Now(), 0
}

// measure ends the first round after a pause: the reader has done nothing but take frames since.
func (c *Pacer) measure(now time.Time) {
	took := now.Sub(c.resumed)
	c.resumed = time.Time{}
	if c.frames < measuredFrames {
		return
	}
	units := min(float64(took)/float64(c.frames)/float64(unitTime), mostUnits)
	if c.average == 0 {
		c.average = units
	}
	c.average += (units - c.average) / averagedTurns
	c.other = max(int(c.average+0.5), 1)
	c.small = max(c.other, smallUnits)
}

// Round ends a round of frames that were all read into f, and returns for how long the reader has to Pause.
func (c *Pacer) Round(f *Frame) time.Duration {
	if !c.resumed.IsZero() {
		c.measure(time.Now())
	}
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

// Contended says whether ports that this one does not send to have had frames of late: the rate holds when they have.
func (c *Pacer) Contended() bool { return !c.at.After(c.until) }

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
	case now.After(c.until):
		c.left = max(c.left, paceTurn)
		return 0
	case c.left <= 0:
		notePaced()
		return time.Duration((paceTurn - c.left) / c.rate * float64(time.Second))
	case now.Sub(c.measured) > contention:
		c.measured = now
		return measuringPause
	}
	return 0
}
