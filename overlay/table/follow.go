package table

import (
	"context"
	"errors"
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

// lostContact notes that the backend is not reached. What is known stays as it is. The caller holds mu.
func (t *Table) lostContact(err error) {
	if t.mu.err == nil || t.mu.err.Error() != err.Error() {
		t.log.Warn("the cluster's records are not kept up to date", "error", err)
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
	if err == nil && !row.Deleted {
		if _, err = overlay.ParseHostID(string(row.Owner)); err == nil {
			err = speaksForItself(k, row)
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
	case row.Deleted:
		t.applyDeleted(k, row, have)
	case row.Owner == t.cfg.Host:
		t.applyOwn(k, row, have)
	case have != nil && have.Owner == t.cfg.Host:
		t.conflict(have, row)
	case have != nil && have.Owner == row.Owner && have.Incarnation == row.Incarnation &&
		string(have.Value) == string(row.Value):
		next := *have
		next.Row, next.missing = row, time.Time{}
		t.replace(&next)
	default:
		t.store(row)
	}
}

// speaksForItself refuses what one host says in another's name, and what makes no sense at all.
func speaksForItself(k overlay.ParsedKey, row Row) error {
	record, err := decode(k, row.Value)
	if err != nil {
		return err
	}
	host := row.Owner
	switch r := record.(type) {
	case overlay.Host:
		host = r.ID
	case overlay.Endpoint:
		host = r.Host
	case overlay.Block:
		host = r.Host
	}
	if host != row.Owner {
		return fmt.Errorf("host %s wrote a record of host %s", row.Owner.Short(), host.Short())
	}
	return nil
}

// replace puts an entry in the place of another with the same record. The caller holds mu.
func (t *Table) replace(e *entry) {
	t.mu.rows[e.Key] = e
	if e.key.Kind == overlay.KindEndpoint {
		t.mu.byNet[e.key.Network][e.Key] = e
	}
	t.mu.unsent[e.Key] = true
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

// again has an own row put once more, as a newer version than the backend's. The caller holds mu.
func (t *Table) again(have *entry, version uint64) {
	next := *have
	next.Incarnation, next.Version, next.missing = t.cfg.Incarnation, max(have.Version, version)+1, time.Time{}
	t.replace(&next)
	t.mu.dirty[have.Key] = true
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

// listed notes that the backend has a row: a list that is read now may have been made before. The caller holds mu.
func (t *Table) listed(key string) {
	if t.mu.listing != nil {
		t.mu.listing[key] = true
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
	if removable(have.key.Kind) {
		t.store(row) // a network has no owner that matters
		return
	}
	if Older(have.Row, row) {
		t.again(have, row.Version)
		return
	}
	t.log.Warn("another host had claimed this before", "key", have.Key, "host", row.Owner.Short())
	t.mu.lost[have.Key] = row
	t.mu.pending.Lost = append(t.mu.pending.Lost, Conflict{Own: have.Row, Other: row})
	delete(t.mu.dirty, have.Key)
	t.store(row)
	t.tell()
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

// applyEnd compares the list that has come with what is known. The caller holds mu.
func (t *Table) applyEnd() {
	now := t.cfg.Clock()
	listing := t.mu.listing
	if listing == nil {
		return
	}
	for key, e := range t.mu.rows {
		if listing[key] {
			continue
		}
		switch {
		case e.key.Kind == overlay.KindNetwork && t.needed(e):
			t.again(e, e.Version)
			for _, claim := range claimsOf(e) {
				if c := t.mu.rows[claim]; c != nil && !listing[claim] {
					t.again(c, c.Version)
				}
			}
		case removable(e.key.Kind) && e.key.Kind != overlay.KindNetwork && t.claimNeeded(e):
			// it is put again with its network
		case e.Owner == t.cfg.Host && !removable(e.key.Kind):
			t.again(e, e.Version)
		case t.mu.rewound:
			if e.missing.IsZero() {
				next := *e
				next.missing = now
				t.replace(&next)
			}
		case t.mu.dirty[key]:
			// it was put while the list was made, and is still to be sent
		default:
			t.remove(key)
		}
	}
	for key := range t.mu.gone {
		if !listing[key] {
			delete(t.mu.gone, key)
		}
	}
	for id := range t.hostsKnown() {
		if !listing[overlay.AliveKey(id)] {
			t.hostDown(id)
		}
	}
	if t.mu.err != nil {
		t.log.Info("the cluster's records are kept up to date again")
	}
	t.mu.err, t.mu.listing, t.mu.synced = nil, nil, true
	if t.mu.everSync.IsZero() {
		t.mu.everSync = now
	}
	t.mu.pending.Synced, t.mu.pending.Health = true, true
	t.tell()
	t.wake()
}

// needed says whether a network that the backend lacks is to be put again: it is in use here, or the backend's state
// went back and this host has made it. The caller holds mu.
func (t *Table) needed(e *entry) bool {
	return t.mu.rewound && e.Owner == t.cfg.Host || t.cfg.Resurrect != nil && t.cfg.Resurrect(e.key.Network)
}

// claimNeeded says whether the name, subnet or number belongs to a network that is put again. The caller holds mu.
func (t *Table) claimNeeded(e *entry) bool {
	n := t.mu.rows[overlay.NetworkKey(e.record.(overlay.Name).Network)]
	return n != nil && t.needed(n)
}

// claimsOf are the keys that a network has claimed.
func claimsOf(e *entry) []string {
	n := e.record.(overlay.Network)
	list := []string{overlay.NameKey(n.Name), overlay.VNIKey(n.VNI)}
	for _, s := range n.Subnets {
		list = append(list, overlay.PoolKey(s.Subnet))
	}
	return list
}

// hostsKnown are the hosts that have rows or are heard of. The caller holds mu.
func (t *Table) hostsKnown() map[overlay.HostID]bool {
	all := map[overlay.HostID]bool{}
	for _, e := range t.mu.rows {
		all[e.Owner] = true
	}
	for id := range t.mu.alive {
		all[id] = true
	}
	return all
}

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
	var puts, deletes []Row
	for key := range t.mu.dirty {
		if e := t.mu.rows[key]; e != nil {
			puts = append(puts, e.Row)
		}
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
	for _, row := range puts {
		if !t.sent(t.cfg.Backend.Put(ctx, row), row) {
			done = false
			if ctx.Err() != nil {
				break
			}
			continue
		}
		t.mu.Lock()
		if e := t.mu.rows[row.Key]; e == nil || e.Version == row.Version {
			delete(t.mu.dirty, row.Key)
		}
		t.listed(row.Key)
		t.mu.Unlock()
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

// expireEvery is how often rows of hosts that are not heard of are looked at.
const expireEvery = 5 * time.Second

// expire removes what has been without its host for too long, until ctx ends.
func (t *Table) expire(ctx context.Context) {
	ticker := time.NewTicker(expireEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			t.Expire(ctx)
			if err := t.save(); err != nil {
				t.log.Warn("the replica of the cluster's records was not stored", "error", err)
			}
		}
	}
}

// BlockTTL is how long a host that is not heard of has its blocks of addresses. Its containers may run all that time.
const BlockTTL = 24 * time.Hour

// Expire removes the rows of hosts that have not been heard of for long enough, in the backend and here. A host that is
// cut off itself removes nothing: all others are not heard of then. It is done every few seconds; tests do not wait for
// that.
func (t *Table) Expire(ctx context.Context) {
	for _, e := range t.expired() {
		if t.cfg.Backend.Delete(ctx, e.Row) != nil {
			return // the next time tries again
		}
		t.mu.Lock()
		if t.mu.rows[e.Key] == e {
			t.remove(e.Key)
		}
		t.mu.Unlock()
	}
}

// expired are the rows that have no host any more. What a restored backend lacks, and nobody has put again, goes at
// once.
func (t *Table) expired() []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.synced {
		return nil
	}
	now := t.cfg.Clock()
	var list []*entry
	for key, e := range t.mu.rows {
		if !e.missing.IsZero() && now.Sub(e.missing) >= missingGrace && e.Owner != t.cfg.Host {
			t.remove(key)
			continue
		}
		if e.Owner == t.cfg.Host || removable(e.key.Kind) {
			continue
		}
		ttl := RecordTTL
		if e.key.Kind == overlay.KindBlock {
			ttl = BlockTTL
		}
		if since, down := t.mu.down[e.Owner]; down && now.Sub(since) >= ttl {
			list = append(list, e)
		}
	}
	return list
}

// Expel removes all rows of a host at once, in the backend and here.
func (t *Table) Expel(ctx context.Context, host overlay.HostID) error {
	t.mu.Lock()
	var list []*entry
	for _, e := range t.mu.rows {
		if e.Owner == host && !removable(e.key.Kind) {
			list = append(list, e)
		}
	}
	t.mu.Unlock()
	for _, e := range list {
		t.mu.Lock()
		if t.mu.rows[e.Key] == e {
			t.remove(e.Key)
			delete(t.mu.dirty, e.Key)
			t.mu.gone[e.Key] = e.Row
		}
		t.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, CallTimeout)
		err := t.cfg.Backend.Delete(call, e.Row)
		cancel()
		if err != nil {
			t.wake()
			return t.explain(err)
		}
		t.mu.Lock()
		delete(t.mu.gone, e.Key)
		t.mu.Unlock()
	}
	return t.save()
}
