package table

import (
	"context"
	"math"
	"time"

	"github.com/usernet/usernet/overlay"
)

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

// orphanGrace is how long a claim of this host waits for its network's record: longer than CallTimeout and what a
// gossiping backend waits for objections, and than owners take to put again what a restored backup lacks.
const orphanGrace = time.Minute

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
	t.unconfirmed(now)
	var list []*entry
	orphans := map[string]time.Time{}
	for key, e := range t.mu.rows {
		if e.missing != nil && now.Sub(*e.missing) >= missingGrace && e.Owner != t.cfg.Host {
			t.remove(key)
			continue
		}
		if t.orphan(e) {
			since, is := t.mu.orphans[key]
			if !is {
				since = now
			}
			orphans[key] = since
			if now.Sub(since) >= t.orphanTTL(e) {
				list = append(list, e)
			}
			continue
		}
		if _, is := t.mu.heard[key]; is || e.Owner == t.cfg.Host || removable(e.kind()) {
			continue
		}
		ttl := RecordTTL
		if e.kind() == overlay.KindBlock {
			ttl = BlockTTL
		}
		if since, down := t.mu.down[e.Owner]; down && now.Sub(since) >= ttl {
			list = append(list, e)
		}
	}
	t.mu.orphans = orphans
	return list
}

// orphan says whether a row is the claim of a name, subnet or number for a network that is not there: a daemon was
// killed between the claim and the network's record. The caller holds mu.
func (t *Table) orphan(e *entry) bool {
	name, is := e.record.(overlay.Name)
	return is && t.mu.rows[overlay.NetworkKey(name.Network)] == nil
}

// orphanTTL is for how long an orphan stays. Its owner knows whether it is still about to write the network's record;
// where the owner is not reached, that record may wait there. The caller holds mu.
func (t *Table) orphanTTL(e *entry) time.Duration {
	_, down := t.mu.down[e.Owner]
	switch {
	case e.Owner == t.cfg.Host:
		return orphanGrace
	case down, t.mu.rows[overlay.HostKey(e.Owner)] == nil:
		return RecordTTL
	}
	return math.MaxInt64 // its owner takes it away
}

// Expel removes all rows of a host at once, in the backend and here.
func (t *Table) Expel(ctx context.Context, host overlay.HostID) error {
	t.mu.Lock()
	var list []*entry
	for _, e := range t.mu.rows {
		if e.Owner == host && !removable(e.kind()) {
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
