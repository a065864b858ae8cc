package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"

	bolt "go.etcd.io/bbolt"

	"github.com/usernet/usernet/network"
)

var _ network.Store = (*DB)(nil)

// The revision is in a bucket of its own, as eight bytes, the highest first.
var (
	bucketStore = []byte("store")
	keyRevision = []byte("revision")
)

// tx is a transaction as the model uses it.
type tx struct {
	bolt     *bolt.Tx
	revision network.Revision
	changes  []network.Change // nil in a View
}

func newTx(b *bolt.Tx) *tx {
	t := &tx{bolt: b}
	if s := b.Bucket(bucketStore); s != nil {
		if v := s.Get(keyRevision); len(v) == 8 {
			t.revision = network.Revision(binary.BigEndian.Uint64(v))
		}
	}
	return t
}

// View implements network.Store.
func (d *DB) View(_ context.Context, f func(network.Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	return d.run(d.bolt.View, func(b *bolt.Tx) error { return f(newTx(b)) })
}

// Update implements network.Store. Nobody else changes the file, so that f is called once.
func (d *DB) Update(_ context.Context, f func(network.Tx) error) (network.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.revision, d.broken
	}
	var t *tx
	err := d.run(d.bolt.Update, func(b *bolt.Tx) error {
		t = newTx(b)
		t.changes = []network.Change{}
		if err := f(t); err != nil {
			return err
		}
		return t.count()
	})
	if err != nil {
		return d.revision, err
	}
	if len(t.changes) > 0 {
		d.revision = t.revision + 1
		for i := range t.changes {
			t.changes[i].Revision = d.revision
		}
		d.log.Add(t.changes)
	}
	return d.revision, nil
}

// Watch implements network.Store.
func (d *DB) Watch(ctx context.Context, from network.Revision) iter.Seq2[network.Change, error] {
	return d.log.Watch(ctx, from)
}

// count stores the next revision where something was changed.
func (t *tx) count() error {
	if len(t.changes) == 0 {
		return nil
	}
	b, err := t.bolt.CreateBucketIfNotExists(bucketStore)
	if err != nil {
		return err
	}
	return b.Put(keyRevision, binary.BigEndian.AppendUint64(nil, uint64(t.revision)+1))
}

func (t *tx) Revision() network.Revision { return t.revision }

func (t *tx) All(name network.Bucket, f func(id string, value []byte) error) error {
	b := t.bolt.Bucket([]byte(name))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error { return f(string(k), v) })
}

func (t *tx) Get(name network.Bucket, id string) []byte {
	b := t.bolt.Bucket([]byte(name))
	if b == nil {
		return nil
	}
	return bytes.Clone(b.Get([]byte(id)))
}

func (t *tx) Put(name network.Bucket, id string, value []byte) error {
	if t.changes == nil {
		return network.ErrReadOnly
	}
	b, err := t.bolt.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return err
	}
	t.changes = append(t.changes, network.Change{Bucket: name, ID: id, Value: append([]byte{}, value...)})
	return b.Put([]byte(id), value)
}

func (t *tx) Delete(name network.Bucket, id string) error {
	if t.changes == nil {
		return network.ErrReadOnly
	}
	b := t.bolt.Bucket([]byte(name))
	if b == nil {
		return nil
	}
	t.changes = append(t.changes, network.Change{Bucket: name, ID: id})
	return b.Delete([]byte(id))
}
