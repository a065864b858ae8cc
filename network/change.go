package network

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/usernet/usernet/internal/errdefs"
)

// errStale says that somebody else has changed the store since the model has read it.
var errStale = errors.New("the store has changed meanwhile")

// maxRetries bounds how often a change is computed anew. Each time somebody else's was stored.
const maxRetries = 100

// update calls f, which computes a change from the model and ends with commit; and calls it again on what another
// process has stored meanwhile, so that f must not change anything itself.
func (m *Model) update(f func() error) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	for range maxRetries {
		err := f()
		if err == nil {
			return nil
		}
		// It may have failed because of what is no longer so, such as a name that was taken.
		if before := m.revision; !errors.Is(err, errStale) {
			if refreshed := m.refreshFrom(before); refreshed != nil || m.revision == before {
				return err
			}
			continue
		}
		if err := m.refresh(); err != nil {
			return m.explained(err)
		}
	}
	return errdefs.Unavailable("the store changes too fast to change it")
}

// refreshFrom reads the store where it has another revision. The caller holds writing.
func (m *Model) refreshFrom(r Revision) error {
	now := r
	err := m.store.View(context.Background(), func(tx Tx) error {
		now = tx.Revision()
		return nil
	})
	if err != nil || now == r {
		return err
	}
	return m.refresh()
}

// Follow shows readers what others change in the store, until ctx ends. It is for stores that several processes share.
func (m *Model) Follow(ctx context.Context) error {
	for {
		m.writing.Lock()
		from := m.revision
		m.writing.Unlock()
		for c, err := range m.store.Watch(ctx, from) {
			if errors.Is(err, ErrCompacted) {
				break // read all anew, and watch from there
			}
			if err != nil {
				return err
			}
			m.writing.Lock()
			if c.Revision > m.revision { // else it is this model's own, or was read with a later one
				err = m.refresh()
			}
			m.writing.Unlock()
			if err != nil {
				return m.explained(err)
			}
		}
		m.writing.Lock()
		err := m.refresh()
		m.writing.Unlock()
		if err != nil {
			return m.explained(err)
		}
	}
}

// refresh reads the whole store. The caller holds writing.
func (m *Model) refresh() error {
	next := newRecords()
	err := m.store.View(context.Background(), func(tx Tx) error {
		m.revision = tx.Revision()
		return errors.Join(
			load(tx, bucketNetworks, func(n *Network) { next.setNetwork(n.ID, n) }),
			load(tx, bucketContainers, func(c *Container) {
				c.Ports, c.Bound = nil, nil // which have records of their own
				next.setContainer(c.ID, c)
			}),
			load(tx, bucketPorts, next.addLoaded(bucketPorts)),
			load(tx, bucketBound, next.addLoaded(bucketBound)),
		)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next.forgetChanges(m.records)
	m.records = next
	return nil
}

// write is a record that is put, or with nil removed: a *Network, a *Container without ports, or a *PortBinding.
type write struct {
	bucket Bucket
	id     string
	record any
}

// commit stores records, all or none, and then shows them to readers. The caller holds writing, in update.
func (m *Model) commit(writes ...write) error {
	if len(writes) == 0 {
		return nil
	}
	values := make([][]byte, len(writes))
	for i, w := range writes {
		if w.record != nil {
			var err error
			if values[i], err = json.Marshal(w.record); err != nil {
				return err
			}
		}
	}
	revision, err := m.store.Update(context.Background(), func(tx Tx) error {
		if tx.Revision() != m.revision {
			return errStale
		}
		for i, w := range writes {
			var err error
			if w.record == nil {
				err = tx.Delete(w.bucket, w.id)
			} else {
				err = tx.Put(w.bucket, w.id, values[i])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
	for _, w := range writes {
		m.show(w)
	}
	return nil
}

// show has the records be what was stored. Parts of what was written may be the caller's.
func (r *records) show(w write) {
	switch w.bucket {
	case bucketNetworks:
		n, _ := w.record.(*Network)
		if n != nil {
			n = n.clone()
		}
		r.setNetwork(w.id, n)
	case bucketContainers:
		c, _ := w.record.(*Container)
		if c != nil {
			c = c.clone()
		}
		r.setContainer(w.id, c)
	case bucketPorts, bucketBound:
		var p portRecord
		if p.check(w.id) == nil {
			b, _ := w.record.(*PortBinding)
			r.setPort(w.bucket, p.container, p.key, b)
		}
	}
}
