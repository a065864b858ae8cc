package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// How long Watch waits before it lists again: the first time, doubled each time without a list, and at most. A quarter
// is added or taken at random, so that the hosts do not all come at once when a store is back.
const (
	minRetry = 200 * time.Millisecond
	maxRetry = 5 * time.Second
)

// errStopped says that the caller of Watch wants no more.
var errStopped = errors.New("watch stopped")

// Watch implements table.Backend.
func (b *Backend) Watch(ctx context.Context) iter.Seq2[table.Event, error] {
	return func(yield func(table.Event, error) bool) {
		b.watching.Lock()
		defer b.watching.Unlock()
		ctx, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(b.ctx, cancel)()
		var alive sync.WaitGroup
		alive.Go(func() { b.keepAlive(ctx) })
		defer alive.Wait()
		defer cancel()

		wait := minRetry
		for {
			listed, err := b.follow(ctx, yield)
			if ctx.Err() != nil || errors.Is(err, errStopped) || !yield(table.Event{}, b.outcome(err)) {
				return
			}
			if listed {
				wait = minRetry
			}
			if !Sleep(ctx, wait*3/4+rand.N(wait/2)) {
				return
			}
			wait = min(2*wait, maxRetry)
		}
	}
}

// Sleep waits, and says whether ctx is not done.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow lists once and yields what changes, until the store's watch ends or the store stops answering. It says whether
// there was a list, and why it ended.
func (b *Backend) follow(ctx context.Context, yield func(table.Event, error) bool) (listed bool, _ error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var prober sync.WaitGroup
	prober.Go(func() { b.probe(ctx, cancel) })
	defer prober.Wait()
	defer cancel(nil)
	for event, err := range b.store.Watch(ctx) {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return listed, err
		}
		if event.Kind == EventList {
			listed = true
			b.health.reached()
		}
		if !b.pass(event, yield) {
			return listed, errStopped
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return listed, cause
	}
	return listed, errors.New("the watch ended")
}

// probe reads a key now and then and cancels a watch when there is no answer: what a watch waits for may never come,
// and its library may try again for ever.
func (b *Backend) probe(ctx context.Context, cancel context.CancelCauseFunc) {
	key := overlay.AliveKey(b.config.Host)
	for {
		err := b.call(ctx, func(ctx context.Context) error {
			_, err := b.store.Get(ctx, key)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			return err
		})
		if err != nil {
			cancel(err)
			return
		}
		if !Sleep(ctx, b.config.AliveTTL/3) {
			return
		}
	}
}

// pass yields a store's event in table's terms.
func (b *Backend) pass(event Event, yield func(table.Event, error) bool) bool {
	if event.Kind != EventList && event.State != (State{}) {
		b.last = event.State
	}
	switch event.Kind {
	case EventList:
		return b.passList(event, yield)
	case EventDelete:
		delete(b.seen, event.Pair.Key)
		b.aliveChanged(event.Pair.Key)
		return yield(table.Event{Kind: table.EventRow, Row: table.Row{Key: event.Pair.Key, Deleted: true}}, nil)
	default:
		row, err := decodeRow(event.Pair)
		if err != nil {
			b.health.unreadable(err)
			return true
		}
		b.seen[row.Key] = event.Pair.Revision
		if row.Incarnation != b.config.Incarnation {
			b.aliveChanged(row.Key)
		}
		return yield(table.Event{Kind: table.EventRow, Row: row}, nil)
	}
}

// passList yields a list between its marks.
func (b *Backend) passList(event Event, yield func(table.Event, error) bool) bool {
	rewound := b.isRewound(event)
	if rewound {
		b.config.Log.Warn("the cluster's store is older than it was: a backup was restored", "store", b.config.URL,
			"revision", event.State.Revision, "before", b.last.Revision)
	}
	b.last, b.seen = event.State, make(map[string]Revision, len(event.List))
	b.health.listed()
	if !yield(table.Event{Kind: table.EventReset, Rewound: rewound}, nil) {
		return false
	}
	for _, p := range event.List {
		row, err := decodeRow(p)
		if err != nil {
			b.health.unreadable(err)
			continue
		}
		b.seen[row.Key] = p.Revision
		if !yield(table.Event{Kind: table.EventRow, Row: row}, nil) {
			return false
		}
	}
	return yield(table.Event{Kind: table.EventSynced}, nil)
}

// isRewound says whether a list is of an older state than what was seen before: a backup was restored. The store's
// revision alone does not tell where other hosts have listed first: what they put again, and new leases, may have taken
// it beyond the last one already. The rows that they put have lower revisions than before all the same, since the
// revisions of what is lost are given again.
func (b *Backend) isRewound(list Event) bool {
	if b.last == (State{}) {
		return false
	}
	return list.State.ID != b.last.ID || list.State.Revision < b.last.Revision ||
		slices.ContainsFunc(list.List, func(p Pair) bool { return p.Revision < b.seen[p.Key] })
}

// aliveChanged has keepAlive look after this host's alive/ row, if key is it.
func (b *Backend) aliveChanged(key string) {
	if key != overlay.AliveKey(b.config.Host) {
		return
	}
	select {
	case b.aliveGone <- struct{}{}:
	default:
	}
}

// keepAlive has a lease with the host's alive/ row until ctx is done.
func (b *Backend) keepAlive(ctx context.Context) {
	for ctx.Err() == nil {
		var lease Lease
		err := b.call(ctx, func(ctx context.Context) (err error) {
			lease, err = b.store.Lease(ctx, b.config.AliveTTL)
			return err
		})
		if err == nil {
			err = b.holdAlive(ctx, lease)
			b.revoke(lease)
		}
		if err != nil {
			Sleep(ctx, b.config.AliveTTL/10)
		}
	}
}

// holdAlive keeps the row there as long as there is the lease. An error is why it could not be written.
func (b *Backend) holdAlive(ctx context.Context, lease Lease) error {
	for {
		if err := b.putAlive(ctx, lease); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-lease.Lost():
			return fmt.Errorf("the lease of %s is lost", overlay.AliveKey(b.config.Host))
		case <-b.aliveGone:
		}
	}
}

// putAlive writes the alive/ row. The row of a later life of this host stays: two daemons with one id would replace
// each other's for ever, and it is the table that decides between them.
func (b *Backend) putAlive(ctx context.Context, lease Lease) error {
	row := table.Row{
		Key: overlay.AliveKey(b.config.Host), Owner: b.config.Host,
		Incarnation: b.config.Incarnation, Version: b.config.Incarnation,
	}
	v, err := encodeRow(row)
	if err != nil {
		return err
	}
	return b.replace(ctx, row.Key, v, lease, func(have table.Row, unreadable error) (bool, error) {
		later := unreadable == nil && have.Incarnation > row.Incarnation
		b.health.doubled(later)
		return !later, nil
	})
}

// revoke ends a lease, also when ctx is done: the others need not wait for the lease to end.
func (b *Backend) revoke(lease Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.CallTimeout/3)
	defer cancel()
	if err := lease.Revoke(ctx); err != nil {
		b.config.Log.Debug("a lease ends by itself", "store", b.config.URL, "error", err)
	}
}
