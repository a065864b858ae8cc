package network

import (
	"encoding/json"
	"fmt"
)

// The format of the records, in the bucket meta.
const (
	schema = "2"
	// withPorts is the format in which a container's record has its ports.
	withPorts = "1"
)

// migrate has the store be of this program's format. Where it is of an earlier one its records are written anew, all in
// the one transaction.
func migrate(tx Tx) error {
	switch v := tx.Get(bucketMeta, keySchema); {
	case string(v) == schema:
		return nil
	case v == nil, string(v) == withPorts:
		if err := moveOutPorts(tx); err != nil {
			return err
		}
	default:
		return fmt.Errorf("the state has format %s, and this usernet knows %s: use the version that wrote it, or another "+
			"--state-dir", v, schema)
	}
	return tx.Put(bucketMeta, keySchema, []byte(schema))
}

// moveOutPorts gives each binding of each container a record of its own.
func moveOutPorts(tx Tx) error {
	var list []*Container
	if err := load(tx, bucketContainers, func(c *Container) { list = append(list, c) }); err != nil {
		return err
	}
	put := func(b Bucket, id string, record any) error {
		value, err := json.Marshal(record)
		if err == nil {
			err = tx.Put(b, id, value)
		}
		return err
	}
	for _, c := range list {
		for b, bindings := range map[Bucket][]PortBinding{bucketPorts: c.Ports, bucketBound: c.Bound} {
			for i, one := range bindings {
				if err := put(b, portID(c.ID, uint64(i+1)), one); err != nil {
					return err
				}
			}
		}
		if c.Ports == nil && c.Bound == nil {
			continue
		}
		c.Ports, c.Bound = nil, nil
		if err := put(bucketContainers, c.ID, c); err != nil {
			return err
		}
	}
	return nil
}
