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
			load(tx, bucketContainers, func(c *Container) { next.setContainer(c.ID, c) }),
		)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = next
	return nil
}

// commit stores a record, or with a nil one removes it, and then shows it to readers. The caller holds writing, in
// update.
func (m *Model) commit(bucket Bucket, id string, record any) error {
	var value []byte
	if record != nil {
		var err error
		if value, err = json.Marshal(record); err != nil {
			return err
		}
	}
	revision, err := m.store.Update(context.Background(), func(tx Tx) error {
		switch {
		case tx.Revision() != m.revision:
			return errStale
		case record == nil:
			return tx.Delete(bucket, id)
		}
		return tx.Put(bucket, id, value)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
	switch r := record.(type) { // parts of it may be the caller's
	case *Network:
		m.setNetwork(id, r.clone())
	case *Container:
		m.setContainer(id, r.clone())
	case nil:
		m.setNetwork(id, nil)
		m.setContainer(id, nil)
	}
	return nil
}
