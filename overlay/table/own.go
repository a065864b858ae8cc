package table

import "github.com/usernet/usernet/overlay"

// again has an own row put once more, as a newer version than the backend's. The caller holds mu.
func (t *Table) again(have *entry, version uint64) {
	next := *have
	next.Incarnation, next.Version, next.missing = t.cfg.Incarnation, max(have.Version, version)+1, nil
	t.replace(&next)
	t.mu.dirty[have.Key] = true
	t.wake()
}

// putBack has a network's row put that the backend lacks, in the version that it had: another host may have changed it
// meanwhile, and its version goes before. The caller holds mu.
func (t *Table) putBack(have *entry) {
	next := *have
	next.Incarnation, next.missing = t.cfg.Incarnation, nil
	t.replace(&next)
	t.mu.dirty[have.Key] = true
	delete(t.mu.edits, have.Key) // what it was made of is gone
	t.wake()
}

// applyOwn handles a row in the backend that this host has written, in this life or another. The caller holds mu.
func (t *Table) applyOwn(k overlay.ParsedKey, row Row, have *entry) {
	if c := t.mu.claims[row.Key]; c != nil && row.Incarnation == t.cfg.Incarnation {
		c.seen, c.version = true, max(c.version, row.Version)
		return // the answer decides
	}
	if k.Kind == overlay.KindHost && t.otherself(row) {
		return
	}
	switch {
	case removable(k.Kind):
		if have == nil && !t.deleting(row) {
			t.store(row) // a network that was made by an earlier life, or whose replica was lost
		} else if have != nil && row.Version >= have.Version {
			t.store(row)
		}
	case have == nil && k.Kind == overlay.KindBlock && !t.deleting(row):
		t.store(row) // the replica was lost; the block is still this host's
	case have == nil:
		t.mu.gone[row.Key] = row // of an earlier life, or its deletion was not sent
		t.wake()
	case row.Version > have.Version || row.Incarnation != have.Incarnation || string(row.Value) != string(have.Value):
		if t.mu.dirty[row.Key] && row.Version < have.Version {
			return // it is about to be replaced
		}
		t.again(have, row.Version)
	}
}

// deleting says whether a row is one that was removed here and is still to go in the backend. The caller holds mu.
func (t *Table) deleting(row Row) bool {
	_, is := t.mu.gone[row.Key]
	return is
}

// otherself finds out whether another daemon runs with this host's id, from a copied state directory: the row of a host
// is only written by the host. The daemon whose life began later has to take another id. The caller holds mu.
func (t *Table) otherself(row Row) bool {
	switch {
	case row.Incarnation == t.cfg.Incarnation:
		t.mu.echoed = true
		return false
	case row.Incarnation < t.cfg.Incarnation && t.mu.echoed:
		t.mu.pending.Duplicate = &row
		t.tell()
		return true
	case row.Incarnation > t.cfg.Incarnation:
		t.mu.pending.Usurped = &row
		t.tell()
	}
	return false
}

// conflict decides between this host's claim and another's, made without knowledge of each other. The older one stays;
// what runs here goes on in any case. The caller holds mu.
func (t *Table) conflict(have *entry, row Row) {
	if removable(have.kind()) {
		// A network has no owner that matters. But its name, subnet or number may be those of one network alone.
		if have.kind() != overlay.KindNetwork && string(have.Value) != string(row.Value) && Older(row, have.Row) {
			t.lose(have, row)
		}
		t.store(row)
		return
	}
	if Older(have.Row, row) {
		t.again(have, row.Version)
		return
	}
	t.lose(have, row)
	delete(t.mu.dirty, have.Key)
	t.store(row)
	t.tell()
}

// lose notes that another host's claim is the older one. The caller holds mu.
func (t *Table) lose(have *entry, row Row) {
	t.log.Warn("another host had claimed this before", "key", have.Key, "host", row.Owner.Short())
	t.mu.lost[have.Key] = Conflict{Own: have.Row, Other: row}
	t.mu.pending.Lost = append(t.mu.pending.Lost, t.mu.lost[have.Key])
}
