package table

import (
	"context"
	"fmt"
	"time"

	"github.com/usernet/usernet/overlay"
)

// maxRefused bounds how many senseless rows are remembered, for people.
const maxRefused = 64

// follow applies what the backend tells, until ctx ends.
func (t *Table) follow(ctx context.Context) {
	for event, err := range t.cfg.Backend.Watch(ctx) {
		t.mu.Lock()
		if err != nil {
			t.lostContact(err)
		} else {
			t.apply(event)
		}
		t.mu.Unlock()
	}
}

// warnAgain is how often another reason for the same lost contact is logged at most: some name the port of a
// connection, which is another one with each attempt.
const warnAgain = time.Minute

// lostContact notes that the backend is not reached. What is known stays as it is. The caller holds mu.
func (t *Table) lostContact(err error) {
	if t.mu.err == nil || t.mu.err.Error() != err.Error() {
		if now := t.cfg.Clock(); t.mu.err == nil || now.Sub(t.mu.warned) >= warnAgain {
			t.log.Warn("the cluster's records are not kept up to date", "error", err)
			t.mu.warned = now
		}
		t.mu.pending.Health = true
		t.tell()
	}
	t.mu.err, t.mu.synced, t.mu.listing = err, false, nil
}

// apply does what one event says. The caller holds mu.
func (t *Table) apply(e Event) {
	switch e.Kind {
	case EventReset:
		t.mu.listing, t.mu.rewound = map[string]bool{}, e.Rewound
	case EventRow:
		t.listed(e.Row.Key)
		t.applyRow(e.Row)
	case EventSynced:
		t.applyEnd()
	}
}

// applyRow takes over a row of the backend. The caller holds mu.
func (t *Table) applyRow(row Row) {
	k, err := overlay.ParseKey(row.Key)
	if err == nil && k.Kind == overlay.KindAlive {
		t.applyAlive(k.Host, row)
		return
	}
	var record any
	if err == nil && !row.Deleted {
		if _, err = overlay.ParseHostID(string(row.Owner)); err == nil {
			record, err = speaksForItself(k, row)
		}
	}
	if err != nil {
		if t.mu.refused[row.Key] == nil && len(t.mu.refused) < maxRefused {
			t.mu.refused[row.Key] = err
			t.log.Warn(
				"a record of the cluster makes no sense and is not used",
				"key",
				clip(row.Key),
				"owner",
				clip(string(row.Owner)),
				"error",
				err,
			)
		}
		return
	}
	delete(t.mu.refused, row.Key)
	have := t.mu.rows[row.Key]
	switch {
	case t.outdated(have, row):
	case row.Deleted:
		t.applyDeleted(k, row, have)
	case k.Kind == overlay.KindNetwork && t.mu.rewound && t.mu.listing != nil && have != nil &&
		row.Version < have.Version:
		t.putBack(have) // a backup has an earlier state of the network, such as another policy
	case k.Kind == overlay.KindNetwork && t.edited(have, row):
	case row.Owner == t.cfg.Host:
		t.applyOwn(k, row, have)
	case have != nil && have.Owner == t.cfg.Host:
		t.conflict(have, row)
	case have != nil && have.Owner == row.Owner && have.Incarnation == row.Incarnation &&
		string(have.Value) == string(row.Value):
		next := *have
		next.Row, next.record, next.missing = row, shareTexts(k, row, have.record), nil
		t.replace(&next)
	default:
		t.enter(k, row, record)
	}
}

// speaksForItself reads a row's record. It refuses what one host says in another's name, and what makes no sense at
// all.
func speaksForItself(k overlay.ParsedKey, row Row) (any, error) {
	record, err := decode(k, row.Value)
	if err != nil {
		return nil, err
	}
	host := row.Owner
	switch r := record.(type) {
	case overlay.Host:
		host = r.ID
	case overlay.Endpoint:
		host = r.Host
	case overlay.Block:
		host = r.Host
	case overlay.Route:
		host = r.Host
	}
	if host != row.Owner {
		return nil, fmt.Errorf("host %s wrote a record of host %s", row.Owner.Short(), host.Short())
	}
	return record, nil
}

// clip bounds what strangers have logged.
func clip(s string) string { return s[:min(len(s), 120)] }

// applyDeleted takes over that a row is gone. One of this host's own is put again: only its owner takes it away, or
// hosts that have not heard of the owner for long; networks are anybody's to remove. The caller holds mu.
func (t *Table) applyDeleted(k overlay.ParsedKey, row Row, have *entry) {
	delete(t.mu.gone, row.Key)
	if have == nil {
		return
	}
	if have.Owner == t.cfg.Host && !removable(k.Kind) {
		t.again(have, row.Version)
		return
	}
	if have.Owner == row.Owner && have.Incarnation > row.Incarnation {
		return // an earlier life's row, which was replaced already
	}
	t.remove(row.Key)
	delete(t.mu.dirty, row.Key)
}

// removable says whether any host may remove rows of a kind.
func removable(k overlay.Kind) bool {
	return k == overlay.KindNetwork || k == overlay.KindName || k == overlay.KindPool || k == overlay.KindVNI
}

// applyAlive notes that a host is heard of, or not any more. The caller holds mu.
func (t *Table) applyAlive(id overlay.HostID, row Row) {
	if row.Deleted {
		if inc, is := t.mu.alive[id]; is && row.Incarnation != 0 && inc > row.Incarnation {
			return // of an earlier life, which was replaced already
		}
		t.hostDown(id)
		return
	}
	if _, is := t.mu.alive[id]; !is {
		t.mu.pending.Hosts = true
		t.tell()
	}
	t.mu.alive[id] = row.Incarnation
	delete(t.mu.down, id)
}

// hostDown notes that a host is not heard of. The caller holds mu.
func (t *Table) hostDown(id overlay.HostID) {
	delete(t.mu.alive, id)
	if id == t.cfg.Host {
		return
	}
	if _, is := t.mu.down[id]; !is {
		t.mu.down[id] = t.cfg.Clock()
		t.mu.pending.Hosts = true
		t.tell()
	}
}
