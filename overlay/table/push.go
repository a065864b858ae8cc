package table

import (
	"context"
	"errors"
	"time"
)

// push brings this host's rows into the backend, until ctx ends. What fails is tried again.
func (t *Table) push(ctx context.Context) {
	const first, most = 100 * time.Millisecond, 5 * time.Second
	wait := first
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.pushing:
		}
		if t.pushAll(ctx) {
			wait = first
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, most)
		t.wake()
	}
}

// pushAll sends what is to be sent, and says whether all of it went.
func (t *Table) pushAll(ctx context.Context) bool {
	t.mu.Lock()
	if !t.mu.synced {
		t.mu.Unlock()
		return true // the end of the next list wakes it
	}
	var puts []pushed
	var deletes []Row
	for key := range t.mu.dirty {
		e := t.mu.rows[key]
		if e == nil {
			continue
		}
		p := pushed{Row: e.Row}
		if edit, is := t.mu.edits[key]; is && !edit.sent {
			p.base = &edit.base
		}
		puts = append(puts, p)
	}
	for _, row := range t.mu.gone {
		deletes = append(deletes, row)
	}
	t.mu.Unlock()
	done := true
	for _, row := range deletes {
		if !t.sent(t.cfg.Backend.Delete(ctx, row), row) {
			return false
		}
		t.mu.Lock()
		if have, is := t.mu.gone[row.Key]; is && have.Version == row.Version {
			delete(t.mu.gone, row.Key)
			t.mu.unsent[row.Key] = true
		}
		t.mu.Unlock()
	}
	edited := false
	for _, p := range puts {
		if !t.sent(t.write(ctx, p), p.Row) {
			done = false
			if ctx.Err() != nil {
				break
			}
			continue
		}
		t.mu.Lock()
		t.written(p)
		t.mu.Unlock()
		edited = edited || p.base != nil
	}
	if edited {
		if err := t.save(); err != nil {
			t.log.Warn("the replica of the cluster's records was not stored", "error", err)
		}
	}
	return done
}

// sent says whether a row went, and logs where the backend was reached and did not take it.
func (t *Table) sent(err error, row Row) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		t.log.Warn("the cluster's store did not take a record", "key", row.Key, "error", err)
	}
	return err == nil
}
