package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	bolt "go.etcd.io/bbolt"

	"github.com/usernet/usernet/network/boltstore"
)

// Errors of Open that a caller may act on: another process has the store open, or it makes no sense.
var (
	ErrLocked  = boltstore.ErrLocked
	ErrDamaged = boltstore.ErrDamaged
)

var (
	bucketNetworks   = []byte("networks")   // id -> Network
	bucketContainers = []byte("containers") // id -> Container
	bucketMeta       = []byte("meta")       // schema, ula
	keySchema        = []byte("schema")
	keyULA           = []byte("ula")
)

const schema = "1"

func openStore(path string) (*boltstore.DB, error) {
	db, err := boltstore.Open(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketNetworks, bucketContainers, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return db.Damaged(fmt.Errorf("%s: %w", name, err))
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
func load[T any, P interface {
	*T
	check(id string) error
}](db *boltstore.DB, tx *bolt.Tx, bucket []byte, add func(P)) error {
	return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
		t := P(new(T))
		err := json.Unmarshal(v, t)
		if err == nil {
			err = t.check(string(k))
		}
		if err != nil {
			return db.Damaged(fmt.Errorf("record %q in %s: %w", k, bucket, err))
		}
		add(t)
		return nil
	})
}

var idForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check holds a network that was read against what the rest of the program relies on.
func (n *Network) check(id string) error {
	switch {
	case n.ID != id || !idForm.MatchString(id):
		return fmt.Errorf("id %q", n.ID)
	case checkNetworkName(n.Name) != nil:
		return fmt.Errorf("name %q", n.Name)
	case n.Driver != DriverBridge && n.Driver != DriverHost && n.Driver != DriverNull:
		return fmt.Errorf("driver %q", n.Driver)
	}
	for _, p := range n.Pools {
		if !p.Subnet.IsValid() || p.Subnet != p.Subnet.Masked() || p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) ||
			p.Range.IsValid() && !p.Subnet.Contains(p.Range.Addr()) {
			return fmt.Errorf("subnet %s, range %s, gateway %s", p.Subnet, p.Range, p.Gateway)
		}
	}
	return nil
}

// check does the same for a container.
func (c *Container) check(id string) error {
	switch {
	case c.ID != id || !idForm.MatchString(id):
		return fmt.Errorf("id %q", c.ID)
	case !nameForm.MatchString(c.Name):
		return fmt.Errorf("name %q", c.Name)
	case c.Status != Created && c.Status != Running && c.Status != Exited:
		return fmt.Errorf("status %q", c.Status)
	}
	for _, e := range c.Endpoints {
		switch {
		case e == nil:
			return errors.New("an empty endpoint")
		case !idForm.MatchString(e.ID) || !idForm.MatchString(e.NetworkID):
			return fmt.Errorf("endpoint %q on network %q", e.ID, e.NetworkID)
		case e.IPv4.IsValid() && !e.IPv4.Addr().Is4() || e.IPv6.IsValid() && !e.IPv6.Addr().Is6():
			return fmt.Errorf("endpoint with addresses %s and %s", e.IPv4, e.IPv6)
		}
	}
	return nil
}

func put(tx *bolt.Tx, bucket []byte, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(id), b)
}
