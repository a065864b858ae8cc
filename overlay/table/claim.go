package table

import (
	"context"
	"errors"
	"slices"
)

// claim is a call of Claim that the backend has not answered yet. Its row may be seen before the answer: without a
// store it is, by all the time that a claim waits for objections.
type claim struct {
	seen    bool   // in the backend
	version uint64 // of the row, as the backend has it
}

// Claim asks the backend for a key that one host may have, and waits for its answer: CallTimeout at most. A *TakenError
// says that another has it. Two claims of one key are not made at the same time.
func (t *Table) Claim(ctx context.Context, key string, value []byte) error {
	if err := overlayRow(key, value); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	row := Row{
		Key: key, Value: slices.Clone(value), Owner: t.cfg.Host, Incarnation: t.cfg.Incarnation, Version: 1,
		Claimed: t.cfg.Clock().UnixNano(),
	}
	t.mu.Lock()
	if have := t.mu.rows[key]; have != nil {
		if have.Owner == row.Owner && have.Claimed != 0 {
			row.Claimed = have.Claimed
		}
		row.Version = have.Version + 1
	}
	if g, is := t.mu.gone[key]; is {
		row.Version = max(row.Version, g.Version+1)
		delete(t.mu.gone, key)
	}
	c := &claim{version: row.Version}
	t.mu.claims[key] = c
	t.mu.Unlock()
	err := t.cfg.Backend.Claim(ctx, row)
	t.mu.Lock()
	delete(t.mu.claims, key)
	row.Version = c.version
	if err != nil {
		t.notClaimed(row, c.seen, err)
	} else if have := t.mu.rows[key]; have == nil || have.Version <= row.Version {
		t.store(row)
		t.listed(key)
	}
	t.mu.Unlock()
	if err != nil {
		return t.explain(err)
	}
	return t.save()
}

// notClaimed has the backend delete what it may have written nevertheless: without an answer, that is not known. The
// caller holds mu.
func (t *Table) notClaimed(row Row, seen bool, err error) {
	var taken *TakenError
	var refused *RefusedError
	if errors.As(err, &taken) || errors.As(err, &refused) {
		return
	}
	switch have := t.mu.rows[row.Key]; {
	case have == nil:
		t.mu.gone[row.Key] = row
		t.mu.unsent[row.Key] = true
		t.wake()
	case have.Owner == t.cfg.Host && seen:
		t.again(have, row.Version) // what this host had before
	}
}
