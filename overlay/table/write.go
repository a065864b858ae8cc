package table

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/usernet/usernet/overlay"
)

// Put has all hosts know a record of this host's own, now or when the backend is reached.
func (t *Table) Put(key string, value []byte) error { return t.put(key, value, 0) }

// PutClaimed is Put for a key that this host may have without asking, such as an address of a block of its own. It goes
// before later claims of other hosts.
func (t *Table) PutClaimed(key string, value []byte) error {
	return t.put(key, value, t.cfg.Clock().UnixNano())
}

func (t *Table) put(key string, value []byte, claimed int64) error {
	if err := overlayRow(key, value); err != nil {
		return err
	}
	t.mu.Lock()
	if t.mu.closed {
		t.mu.Unlock()
		return ErrClosed
	}
	row := Row{
		Key:         key,
		Value:       slices.Clone(value),
		Owner:       t.cfg.Host,
		Incarnation: t.cfg.Incarnation,
		Version:     1,
		Claimed:     claimed,
	}
	if have := t.mu.rows[key]; have != nil {
		if have.Owner == row.Owner && have.Incarnation == row.Incarnation && string(have.Value) == string(value) {
			t.mu.Unlock()
			return nil
		}
		if have.Owner == row.Owner && have.Claimed != 0 {
			row.Claimed = have.Claimed
		}
		row.Version = have.Version + 1
	}
	if g, is := t.mu.gone[key]; is {
		row.Version = max(row.Version, g.Version+1)
		delete(t.mu.gone, key)
	}
	t.store(row)
	t.mu.dirty[key] = true
	t.mu.Unlock()
	t.wake()
	return t.save()
}

// overlayRow refuses what other hosts would not take.
func overlayRow(key string, value []byte) error {
	k, err := overlay.ParseKey(key)
	if err == nil {
		_, err = decode(k, value)
	}
	return err
}

// Drop takes a row of this host's away: here at once, and in the backend when it is reached.
func (t *Table) Drop(key string) {
	t.mu.Lock()
	have := t.mu.rows[key]
	delete(t.mu.lost, key)
	if have == nil || have.Owner != t.cfg.Host {
		t.mu.Unlock()
		return
	}
	t.remove(key)
	delete(t.mu.dirty, key)
	t.mu.gone[key] = have.Row
	t.mu.Unlock()
	t.wake()
	if err := t.save(); err != nil {
		t.log.Warn("the replica of the cluster's records was not stored", "error", err)
	}
}

// Delete removes a row of any host, in the backend first: so for networks, which any host may remove.
func (t *Table) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	t.mu.Lock()
	have := t.mu.rows[key]
	t.mu.Unlock()
	if have == nil {
		return nil
	}
	if err := t.cfg.Backend.Delete(ctx, have.Row); err != nil {
		return t.explain(err)
	}
	t.mu.Lock()
	if t.mu.rows[key] == have {
		t.remove(key)
		delete(t.mu.dirty, key)
	}
	t.mu.Unlock()
	return t.save()
}

// explain makes an error of the time that a call was given one that says what was not reached.
func (t *Table) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		var away *UnavailableError
		if !errors.As(err, &away) {
			h := t.cfg.Backend.Health()
			reason := error(fmt.Errorf("no answer within %v", CallTimeout))
			if h.Err != nil && !h.Connected {
				if errors.As(h.Err, &away) {
					return away
				}
				reason = h.Err
			}
			return &UnavailableError{URL: h.URL, Err: reason}
		}
	}
	return err
}
