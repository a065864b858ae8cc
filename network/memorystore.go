package network

import (
	"bytes"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
)

// MemoryStore is a Store that keeps its records as long as the process lives. Several Models may share one, as daemons
// on several machines share a store; each sees what the others change. Make it with NewMemoryStore.
type MemoryStore struct {
	log ChangeLog

	mu       sync.Mutex // one change at a time; guards the rest
	revision Revision
	records  map[Bucket]map[string][]byte
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore makes an empty one.
func NewMemoryStore() *MemoryStore { return &MemoryStore{records: map[Bucket]map[string][]byte{}} }

// memoryTx is a transaction of a MemoryStore, whose lock is held.
type memoryTx struct {
	s        *MemoryStore
	writable bool
	changes  []Change // in order
}

// View implements Store.
func (s *MemoryStore) View(_ context.Context, f func(Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(&memoryTx{s: s})
}

// Update implements Store.
func (s *MemoryStore) Update(_ context.Context, f func(Tx) error) (Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &memoryTx{s: s, writable: true}
	if err := f(tx); err != nil {
		return s.revision, err
	}
	if len(tx.changes) == 0 {
		return s.revision, nil
	}
	s.revision++
	for i := range tx.changes {
		c := &tx.changes[i]
		c.Revision = s.revision
		if s.records[c.Bucket] == nil {
			s.records[c.Bucket] = map[string][]byte{}
		}
		if c.Value == nil {
			delete(s.records[c.Bucket], c.ID)
		} else {
			s.records[c.Bucket][c.ID] = c.Value
		}
	}
	s.log.Add(tx.changes)
	return s.revision, nil
}

// Watch implements Store.
func (s *MemoryStore) Watch(ctx context.Context, from Revision) iter.Seq2[Change, error] {
	return s.log.Watch(ctx, from)
}

// Close implements Store. The records stay, for a Model that is opened on them again.
func (s *MemoryStore) Close() error { return nil }

func (t *memoryTx) Revision() Revision { return t.s.revision }

// seen is a bucket as the transaction has it.
func (t *memoryTx) seen(b Bucket) map[string][]byte {
	records := maps.Clone(t.s.records[b])
	if records == nil {
		records = map[string][]byte{}
	}
	for _, c := range t.changes {
		switch {
		case c.Bucket != b:
		case c.Value == nil:
			delete(records, c.ID)
		default:
			records[c.ID] = c.Value
		}
	}
	return records
}

func (t *memoryTx) All(b Bucket, f func(id string, value []byte) error) error {
	records := t.seen(b)
	for _, id := range slices.Sorted(maps.Keys(records)) {
		if err := f(id, bytes.Clone(records[id])); err != nil {
			return err
		}
	}
	return nil
}

func (t *memoryTx) Get(b Bucket, id string) []byte { return bytes.Clone(t.seen(b)[id]) }

func (t *memoryTx) Put(b Bucket, id string, value []byte) error {
	if !t.writable {
		return ErrReadOnly
	}
	t.changes = append(t.changes, Change{Bucket: b, ID: id, Value: append([]byte{}, value...)})
	return nil
}

func (t *memoryTx) Delete(b Bucket, id string) error {
	if !t.writable {
		return ErrReadOnly
	}
	t.changes = append(t.changes, Change{Bucket: b, ID: id})
	return nil
}
