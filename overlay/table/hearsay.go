package table

import (
	"fmt"
	"time"

	"github.com/usernet/usernet/overlay"
)

// While the backend is away, hosts tell each other of their own rows themselves, over the paths that frames take
// (Unsent, Hear). What was heard so holds until the backend says otherwise.

// heardFor is how long a row stays that was heard of a host, once the backend is reached: its owner puts it there.
const heardFor = time.Minute

// maxHeard bounds the rows that are hearsay.
const maxHeard = 1 << 14

// Unsent are this host's own rows that the backend is to have and has not, while it is away: endpoints and the host,
// with those that are gone. None while it is reached.
func (t *Table) Unsent() []Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.synced {
		return nil
	}
	var list []Row
	for key := range t.mu.dirty {
		if e := t.mu.rows[key]; e != nil && isHeard(e.kind()) {
			list = append(list, e.Row)
		}
	}
	for key, row := range t.mu.gone {
		if k, err := overlay.ParseKey(key); err == nil && isHeard(k.Kind) && row.Owner == t.cfg.Host {
			row.Deleted, row.Value = true, nil
			list = append(list, row)
		}
	}
	return list
}

// isHeard says whether rows of a kind are taken from their owner. Claims of what only one host may have need the
// backend.
func isHeard(k overlay.Kind) bool { return k == overlay.KindEndpoint || k == overlay.KindHost }

// Hear takes over what another host says of its own, where it is newer than what is known. from has been
// authenticated by the caller.
func (t *Table) Hear(from overlay.HostID, row Row) error {
	k, err := overlay.ParseKey(row.Key)
	switch {
	case err != nil:
		return err
	case !isHeard(k.Kind), row.Owner != from, from == t.cfg.Host:
		return fmt.Errorf("host %s speaks of %s of host %s", from.Short(), clip(row.Key), row.Owner.Short())
	}
	if !row.Deleted {
		if _, err := speaksForItself(k, row); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return ErrClosed
	}
	have := t.mu.rows[row.Key]
	switch {
	case have != nil && have.Owner != from:
		return nil // the backend decides
	case have != nil && !row.newer(have.Row):
		if h, is := t.mu.heard[row.Key]; is && have.Version == row.Version {
			h.at = t.cfg.Clock()
			t.mu.heard[row.Key] = h
		}
		return nil
	case row.Deleted: // remove does nothing where there is none
		t.remove(row.Key)
		delete(t.mu.heard, row.Key)
		return nil
	case k.Kind == overlay.KindEndpoint && t.mu.rows[overlay.NetworkKey(k.Network)] == nil:
		return fmt.Errorf("host %s has an endpoint of a network that is not known", from.Short())
	case len(t.mu.heard) >= maxHeard:
		return fmt.Errorf("%d records are known from their hosts alone, and no more are taken", maxHeard)
	}
	h := t.mu.heard[row.Key]
	t.mu.heard[row.Key] = hearsay{at: t.cfg.Clock(), alone: h.alone || have == nil}
	t.store(row)
	return nil
}

// newer says whether a row replaces another of the same owner. A deletion has the version that is deleted.
func (r Row) newer(have Row) bool {
	if r.Incarnation != have.Incarnation {
		return r.Incarnation > have.Incarnation
	}
	return r.Version > have.Version || r.Deleted && r.Version == have.Version
}

// hearsay is what is known of a row that was heard of its owner.
type hearsay struct {
	at    time.Time // when it was heard last
	alone bool      // the backend has no such row, as far as is known
}

// outdated says whether the backend's row is older than what was heard of its owner, who is about to put that. Where it
// is not, the row is hearsay no more. The caller holds mu.
func (t *Table) outdated(have *entry, row Row) bool {
	h, is := t.mu.heard[row.Key]
	if !is {
		return false
	}
	if have != nil && have.Owner == row.Owner && have.Row.newer(row) {
		h.alone = false
		t.mu.heard[row.Key] = h
		return true
	}
	delete(t.mu.heard, row.Key)
	return false
}

// unconfirmed removes what was heard and neither heard again nor put into the backend by its owner. The caller holds
// mu, and the backend is reached.
func (t *Table) unconfirmed(now time.Time) {
	for key, h := range t.mu.heard {
		if now.Sub(h.at) < heardFor {
			continue
		}
		delete(t.mu.heard, key)
		if h.alone {
			t.remove(key)
		}
	}
}
