package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/api"
)

// keptEvents is how many past events `events --since` can still show, as in Docker.
const keptEvents = 256

// eventLog keeps the latest events and wakes those who wait for more.
type eventLog struct {
	mu     sync.Mutex    // guards the rest
	recent []api.Event   // oldest first, at most keptEvents
	first  uint64        // number of recent[0]
	wake   chan struct{} // closed and replaced at each event
}

func newEventLog() *eventLog { return &eventLog{wake: make(chan struct{})} }

func (l *eventLog) add(kind, action, id string, attributes map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent) == keptEvents {
		l.recent = l.recent[:copy(l.recent, l.recent[1:])] // which nobody else has
		l.first++
	}
	l.recent = append(l.recent, api.Event{Type: kind, Action: action, ID: id, Attributes: attributes, Time: time.Now()})
	close(l.wake)
	l.wake = make(chan struct{})
}

// from returns the events numbered next and later, the number after them, and what is closed at the next one.
func (l *eventLog) from(next uint64) ([]api.Event, uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	skip := uint64(0)
	if next > l.first {
		skip = min(next-l.first, uint64(len(l.recent)))
	}
	return append([]api.Event(nil), l.recent[skip:]...), l.first + uint64(len(l.recent)), l.wake
}

// Events calls send for each event from since on (a zero since: from now on). It returns nil where until is reached or
// ctx ends, and an error where send fails or the daemon ends.
func (d *Daemon) Events(ctx context.Context, since, until time.Time, send func(api.Event) error) error {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	next := uint64(0)
	if since.IsZero() {
		_, next, _ = d.events.from(^uint64(0))
	}
	for {
		list, n, wake := d.events.from(next)
		for _, e := range list {
			if e.Time.Before(since) {
				continue
			}
			if !until.IsZero() && e.Time.After(until) {
				return nil
			}
			if err := send(e); err != nil {
				return err
			}
		}
		next = n
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		case <-d.ctx.Done():
			return errdefs.Unavailable("the daemon ends")
		}
	}
}
