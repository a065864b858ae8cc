package vswitch

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/isolate"
)

// Limit bounds the bytes of one direction of a port, Ethernet headers included. The zero value bounds nothing.
type Limit struct {
	PerSecond float64 // bytes
	Burst     float64 // bytes that may come at once
}

// On says whether there is a bound.
func (l Limit) On() bool { return l.PerSecond > 0 }

// limiter is a token bucket that may be overdrawn by one frame: super-frames may be larger than a burst, and the next
// frame then waits for as long as that takes. Its owner guards it.
type limiter struct {
	Limit
	left float64
	at   time.Time
}

func newLimiter(l Limit, now time.Time) *limiter { return &limiter{l, l.Burst, now} }

// take is called when a frame of n bytes goes, which it may when wait has returned 0.
func (l *limiter) take(n int) { l.left -= float64(n) }

// wait returns for how long the next frame has to wait.
func (l *limiter) wait(now time.Time) time.Duration {
	l.left = min(l.Burst, l.left+now.Sub(l.at).Seconds()*l.PerSecond)
	l.at = now
	if l.left > 0 || l.left == l.Burst {
		return 0
	}
	return time.Duration(-l.left/l.PerSecond*float64(time.Second)) + time.Microsecond
}

// What a limited port keeps of the frames for it: as much as goes within queueFor, and queueLeast at least, since one
// super-frame is 64 KiB. What comes beyond is dropped, which has TCP send no faster.
const (
	queueFor   = 100 * time.Millisecond
	queueLeast = 128 << 10 // bytes
)

var errQueueFull = errors.New("the queue of a limited port is full")

// limited is a device that frames are written to at a bounded rate, by a goroutine of its own.
type limited struct {
	Device
	max int // bytes of the queue

	mu     sync.Mutex // guards the fields below
	queue  []queued
	bytes  int
	closed bool

	wake  chan struct{} // has room for one
	stop  chan struct{}
	ended chan struct{}
}

// queued is a copy of a frame.
type queued struct {
	header  [HeaderLen]byte
	payload []byte
}

func (q *queued) len() int { return EthernetHeaderLen + len(q.payload) }

// newLimited begins to write to dev.
func newLimited(s *Switch, dev Device, l Limit) *limited {
	q := &limited{
		Device: dev,
		max:    max(queueLeast, int(l.PerSecond*queueFor.Seconds())),
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	go func() {
		defer close(q.ended)
		isolate.Do(s.cfg.Logger, "writing frames at a bounded rate", func() { q.run(newLimiter(l, time.Now())) })
	}()
	return q
}

// WriteFrame implements Device: it keeps a copy.
func (q *limited) WriteFrame(f *Frame) error {
	n := f.Len()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if q.bytes+n > q.max && len(q.queue) > 0 {
		return errQueueFull
	}
	q.queue = append(q.queue, queued{f.Header, slices.Concat(f.Payload...)})
	q.bytes += n
	select {
	case q.wake <- struct{}{}:
	default: // it is awake
	}
	return nil
}

// next takes the first frame; false: there is none.
func (q *limited) next() (queued, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return queued{}, false
	}
	first := q.queue[0]
	q.queue[0] = queued{}
	if q.queue = q.queue[1:]; len(q.queue) == 0 {
		q.queue = nil
	}
	q.bytes -= first.len()
	return first, true
}

// run writes until close.
func (q *limited) run(l *limiter) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var f Frame
	for {
		if wait := l.wait(time.Now()); wait > 0 {
			timer.Reset(wait)
			select {
			case <-q.stop:
				return
			case <-timer.C:
			}
			continue
		}
		one, ok := q.next()
		if !ok {
			select {
			case <-q.stop:
				return
			case <-q.wake:
			}
			continue
		}
		f.Header = one.header
		f.pieces[0] = one.payload
		f.Payload = f.pieces[:]
		_ = q.Device.WriteFrame(&f) // a frame is lost, as on any network
		f.Payload, f.pieces[0] = nil, nil
		l.take(one.len())
	}
}

// close ends it, and waits until nothing is written any more. What is queued is dropped.
func (q *limited) close() {
	q.mu.Lock()
	closed := q.closed
	q.closed = true
	q.mu.Unlock()
	if closed {
		return
	}
	close(q.stop)
	<-q.ended
}
