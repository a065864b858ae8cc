package network

import (
	"context"
	"iter"
	"sync"
)

// maxChanges is how many changes a ChangeLog holds: some of each container of a daemon with a thousand of them.
const maxChanges = 4096

// ChangeLog is what a store on one machine needs to implement Watch: the latest changes, and those who wait for more.
// The zero value is ready.
type ChangeLog struct {
	mu     sync.Mutex    // guards the rest
	recent []Change      // oldest first
	gone   Revision      // that of the newest change that is no longer in recent
	wake   chan struct{} // closed and replaced at each change; nil where nobody has waited yet
}

// Start says at which revision the store was opened: nothing is known of before.
func (l *ChangeLog) Start(r Revision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = r
}

// Add records changes that were stored together.
func (l *ChangeLog) Add(changes []Change) {
	if len(changes) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent = append(l.recent, changes...)
	for len(l.recent) > maxChanges { // whole revisions at a time
		l.gone = l.recent[0].Revision
		for len(l.recent) > 0 && l.recent[0].Revision == l.gone {
			l.recent = l.recent[1:]
		}
	}
	if len(l.recent) == 0 {
		l.recent = nil // it may have been large
	}
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// after returns the changes after a revision, and what is closed at the next one.
func (l *ChangeLog) after(r Revision) (list []Change, wake <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r < l.gone {
		return nil, nil, ErrCompacted
	}
	for _, c := range l.recent {
		if c.Revision > r {
			list = append(list, c)
		}
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return list, l.wake, nil
}

// Watch implements Store.Watch.
func (l *ChangeLog) Watch(ctx context.Context, from Revision) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			list, wake, err := l.after(from)
			if err != nil {
				yield(Change{}, err)
				return
			}
			for _, c := range list {
				if !yield(c, nil) {
					return
				}
				from = c.Revision
			}
			if len(list) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
				yield(Change{}, ctx.Err())
				return
			}
		}
	}
}
