package table

import (
	"context"
	"errors"
	"maps"

	"github.com/usernet/usernet/overlay"
)

// Networks' records are changed by any host, and two may do so at one time. An edit is kept with the row that it was
// made of, its base, until the backend has it in the place of that row (Backend.Replace). Where the backend has another
// host's edit instead, this one is made of that anew, and tried again. So both stay; of an option that both have
// changed, the one that was written later counts.
//
// Without a store there is no order of all writes: two hosts replace one row, and one of the two edits is what all
// hosts see. The host of the other sees then that it was made without knowledge of its own, and makes its own of that
// anew; of an option that both have changed, the one that all see counts.

// edit is what this host made of a network's record last.
type edit struct {
	base Row
	sent bool // the backend has it
}

// ErrUnknownNetwork says that a network has no record.
var ErrUnknownNetwork = errors.New("the network is not known in the cluster")

// EditNetwork has all hosts know another record of a network, now or when the backend is reached. f makes it of the one
// that there is, by changing options; it is called with the table's lock held.
func (t *Table) EditNetwork(id string, f func(options map[string]string)) error {
	t.mu.Lock()
	err := t.editNetwork(overlay.NetworkKey(id), f)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	t.wake()
	return t.save()
}

func (t *Table) editNetwork(key string, f func(options map[string]string)) error {
	have := t.mu.rows[key]
	switch {
	case t.mu.closed:
		return ErrClosed
	case have == nil:
		return ErrUnknownNetwork
	}
	n := have.record.(overlay.Network)
	before := n.Options
	if n.Options = maps.Clone(before); n.Options == nil {
		n.Options = map[string]string{}
	}
	if f(n.Options); maps.Equal(n.Options, before) {
		return nil
	}
	value, err := overlay.Encode(n)
	if err != nil {
		return err
	}
	// A row that the backend does not have yet, as of a network that was just made, is put whole.
	if e, is := t.mu.edits[key]; !t.mu.dirty[key] || is && e.sent {
		t.mu.edits[key] = edit{base: have.Row}
	}
	t.storeEdit(have, value, have.Version+1)
	return nil
}

// storeEdit stores another value of a network's row as this host's, which the backend is to have. The caller holds mu.
func (t *Table) storeEdit(have *entry, value []byte, version uint64) {
	row := Row{
		Key: have.Key, Value: value, Owner: t.cfg.Host, Incarnation: t.cfg.Incarnation, Version: version,
	}
	if have.Owner == row.Owner {
		row.Claimed = have.Claimed
	}
	t.store(row)
	t.mu.dirty[row.Key] = true
}

// edited handles a row of the backend where this host has made an edit of the record that is there, and says whether
// that was all. The caller holds mu.
func (t *Table) edited(have *entry, row Row) bool {
	e, is := t.mu.edits[row.Key]
	if !is || have == nil {
		return false
	}
	switch {
	case row.Owner == t.cfg.Host && row.Version >= have.Version:
		t.editSent(row) // it is there
		return false
	case row.Owner == t.cfg.Host:
		return false
	case row.Version < e.base.Version, row.Same(e.base):
		return true // the edit was made with knowledge of it
	case !e.sent:
		t.rebase(have, row, true)
		return true
	case row.Version > have.Version: // it was made with knowledge of this one
		delete(t.mu.edits, row.Key)
		return false
	}
	t.rebase(have, row, false)
	return true
}

// editSent notes that the backend has this host's edit. The caller holds mu.
func (t *Table) editSent(row Row) {
	if e, is := t.mu.edits[row.Key]; is && !e.sent {
		e.sent = true
		t.mu.edits[row.Key] = e
		t.mu.unsent[row.Key] = true
	}
	delete(t.mu.dirty, row.Key)
}

// rebase makes this host's edit of another host's. ours says whose value an option has that both have changed. The
// caller holds mu.
func (t *Table) rebase(have *entry, theirs Row, ours bool) {
	base, err1 := overlay.Decode[overlay.Network](t.mu.edits[theirs.Key].base.Value)
	n, err2 := overlay.Decode[overlay.Network](theirs.Value)
	delete(t.mu.edits, theirs.Key)
	if errors.Join(err1, err2) != nil {
		return // what makes no sense is written over
	}
	before := n.Options
	n.Options = mergeOptions(base.Options, have.record.(overlay.Network).Options, before, ours)
	value, err := overlay.Encode(n)
	if err != nil {
		t.log.Warn("a change of a network is lost: another host's came before, and both do not go together",
			"network", n.Name, "error", err)
	}
	if err != nil || maps.Equal(n.Options, before) {
		delete(t.mu.dirty, theirs.Key)
		t.store(theirs)
		return
	}
	t.mu.edits[theirs.Key] = edit{base: theirs}
	t.storeEdit(have, value, max(have.Version, theirs.Version)+1)
	t.wake()
}

// mergeOptions makes of theirs what mine changes of base; where theirs changes an option too, only if ours is set.
func mergeOptions(base, mine, theirs map[string]string, ours bool) map[string]string {
	merged := map[string]string{}
	maps.Copy(merged, theirs)
	both := maps.Clone(merged)
	maps.Copy(both, base)
	maps.Copy(both, mine)
	same := func(a, b map[string]string, option string) bool {
		x, inA := a[option]
		y, inB := b[option]
		return inA == inB && x == y
	}
	for option := range both {
		switch value, is := mine[option]; {
		case same(base, mine, option), !ours && !same(base, theirs, option):
		case is:
			merged[option] = value
		default:
			delete(merged, option)
		}
	}
	return merged
}

// A pushed row is one that the backend is to have; base is nil unless it is an edit.
type pushed struct {
	Row
	base *Row
}

// write puts a row of this host into the backend, an edit in the place of what it was made of.
func (t *Table) write(ctx context.Context, p pushed) error {
	if p.base == nil {
		return t.cfg.Backend.Put(ctx, p.Row)
	}
	err := t.cfg.Backend.Replace(ctx, p.Row, *p.base)
	var changed *ChangedError
	if !errors.As(err, &changed) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	have, e := t.mu.rows[p.Key], t.mu.edits[p.Key]
	switch {
	case have == nil || !have.Same(p.Row) || e.sent:
		// the watch was faster
	case changed.Row.Deleted:
		t.remove(p.Key)
		delete(t.mu.dirty, p.Key)
	default:
		t.rebase(have, changed.Row, true)
	}
	return err
}

// written notes that the backend has a row. The caller holds mu.
func (t *Table) written(p pushed) {
	have := t.mu.rows[p.Key]
	if have == nil || have.Version == p.Version {
		delete(t.mu.dirty, p.Key)
		if p.base != nil {
			t.editSent(p.Row)
		}
	} else if e := t.mu.edits[p.Key]; p.base != nil && !e.sent && e.base.Same(*p.base) {
		t.mu.edits[p.Key] = edit{base: p.Row} // it was edited again meanwhile
	}
	t.listed(p.Key)
}
