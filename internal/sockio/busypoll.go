package sockio

import (
	"sync/atomic"
	"time"
)

// busyPollFor is for how long reactors look for events before they sleep; 0: not at all.
var busyPollFor atomic.Int64

// BusyPoll has the reactors of this process look for the next event for up to d, again and again, before they sleep, as
// net.core.busy_poll has poll(2) do for network devices. It is for traffic that goes to and fro on a machine with
// nothing else to do: a processor that sleeps takes 20 to 50 µs to wake up, which is more than all that is done for a
// request. It costs processor time. 0, as without the call, has them sleep at once.
func BusyPoll(d time.Duration) { busyPollFor.Store(int64(d)) }

// preempted is the time between two looks, of which each takes less than 1 µs, that says that something else needs the
// processor.
const preempted = 100 * time.Microsecond

// For how long a reactor that noticed it does not look, the first time and at most.
const leaveAlone, leaveAloneMax = 100 * time.Millisecond, 3 * time.Second

// busyPoll is what one reactor knows of its waits.
type busyPoll struct {
	began, last time.Time // the wait, and the last look of it
	pays        bool      // the last wait was short enough to be spent looking
	alone       time.Time // no looking before
	leave       time.Duration
}

// begin says whether a wait for up to d is to begin with looking.
func (b *busyPoll) begin(now time.Time) bool {
	b.began, b.last = now, now
	return b.pays && !now.Before(b.alone)
}

// again says, after a look that found nothing, whether there is to be another.
func (b *busyPoll) again(now time.Time, d time.Duration) bool {
	if now.Sub(b.last) > preempted {
		b.leave = min(max(2*b.leave, leaveAlone), leaveAloneMax)
		b.alone = now.Add(b.leave)
		return false
	}
	b.last = now
	return now.Sub(b.began) <= d
}

// end says that the wait has ended.
func (b *busyPoll) end(now time.Time, d time.Duration) {
	if b.pays = now.Sub(b.began) <= d; b.pays && now.Sub(b.alone) > leaveAloneMax {
		b.leave = 0
	}
}

// waitBusy is wait for as long as it is to look. found: the wait is over.
func (r *Reactor) waitBusy(d time.Duration) (n int, found bool, err error) {
	if n, err := r.waitRaw(0); n > 0 || err != nil {
		return n, true, err
	}
	look := r.busy.begin(time.Now())
	for look {
		if n, err := r.waitRaw(0); n > 0 || err != nil {
			return n, true, err
		}
		look = r.busy.again(time.Now(), d)
	}
	return 0, false, nil
}
