package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("the state is in use by another usernet daemon")

// lockWait is how long Open waits for another process to give the store up: a daemon that is just ending.
const lockWait = 2 * time.Second

var (
	bucketNetworks   = []byte("networks")   // id -> Network
	bucketContainers = []byte("containers") // id -> Container
	bucketMeta       = []byte("meta")       // schema, ula
	keySchema        = []byte("schema")
	keyULA           = []byte("ula")
)

const schema = "1"

func openStore(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w (%s): stop it, or give this one another --state-dir", ErrLocked, path)
	case err != nil:
		return nil, fmt.Errorf("state %s cannot be opened: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketNetworks, bucketContainers, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get(keySchema); v != nil && string(v) != schema {
			return fmt.Errorf("state %s has format %s, and this usernet knows %s: use the version that wrote it, or another --state-dir", path, v, schema)
		}
		return meta.Put(keySchema, []byte(schema))
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// load reads all records of a bucket.
func load[T any](tx *bolt.Tx, bucket []byte, add func(*T)) error {
	return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
		t := new(T)
		if err := json.Unmarshal(v, t); err != nil {
			return fmt.Errorf("record %s in %s is damaged (%w): move the state directory away to start anew", k, bucket, err)
		}
		add(t)
		return nil
	})
}

func put(tx *bolt.Tx, bucket []byte, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(id), b)
}

func clone[T any](v *T) *T {
	b, err := json.Marshal(v)
	if err == nil {
		c := new(T)
		if err = json.Unmarshal(b, c); err == nil {
			return c
		}
	}
	panic(fmt.Sprintf("network: a record that was stored does not encode: %v", err)) // cannot happen: it was encoded before
}
