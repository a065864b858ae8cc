package forwarder

import (
	"sync/atomic"
	"time"
)

// sweepInterval is how often expired associations are looked for: what is kept is kept that much longer at most.
const sweepInterval = 5 * time.Second

// sweepLater arranges for expired associations to be ended. Nothing runs while there are none. The caller holds f.mu.
func (f *Forwarder) sweepLater() {
	if f.sweeping || f.closed {
		return
	}
	f.sweeping = true
	time.AfterFunc(sweepInterval, f.sweep)
}

func (f *Forwarder) sweep() {
	now := clock()
	f.mu.Lock()
	var ends []func()
	for _, a := range f.udp {
		if a.expired(now) {
			ends = append(ends, a.end)
		}
	}
	for _, in := range f.inbound {
		if in.expired(now) {
			ends = append(ends, in.end)
		}
	}
	for _, p := range f.echo {
		if p.expired(now) {
			ends = append(ends, p.end)
		}
	}
	f.sweeping = false
	if len(ends) < len(f.udp)+len(f.inbound)+len(f.echo) {
		f.sweepLater()
	}
	f.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

var started = time.Now()

// clock is how many nanoseconds this process is old: nobody who sets the machine's clock changes it.
func clock() int64 { return int64(time.Since(started)) }

// idle is when something was last used, and for how long it is kept then.
type idle struct {
	last    atomic.Int64 // by clock
	timeout atomic.Int64 // nanoseconds
}

func (i *idle) used(timeout time.Duration) {
	i.last.Store(clock())
	i.timeout.Store(int64(timeout))
}

func (i *idle) expired(now int64) bool { return now-i.last.Load() > i.timeout.Load() }
