package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
)

// Records of the bucket meta.
const (
	keySchema = "schema"
	keyULA    = "ula" // the installation's /48
)

// RecordError says that a record in the store makes no sense.
type RecordError struct {
	Bucket Bucket
	ID     string
	Err    error
}

// Error names the record.
func (e *RecordError) Error() string {
	return fmt.Sprintf("record %q in %s: %v", e.ID, e.Bucket, e.Err)
}

// Unwrap returns what is wrong with it.
func (e *RecordError) Unwrap() error { return e.Err }

// load reads all records of a bucket.
func load[T any, P interface {
	*T
	check(id string) error
}](tx Tx, bucket Bucket, add func(P)) error {
	return tx.All(bucket, func(id string, value []byte) error {
		t := P(new(T))
		err := json.Unmarshal(value, t)
		if err == nil {
			err = t.check(id)
		}
		if err != nil {
			return &RecordError{bucket, id, err}
		}
		add(t)
		return nil
	})
}

// Forms are compiled at their first use: most commands, which are clients, use none.
var idForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{64}$`)
})

// check holds a network that was read against what the rest of the program relies on.
func (n *Network) check(id string) error {
	switch {
	case n.ID != id || !idForm().MatchString(id):
		return fmt.Errorf("id %q", n.ID)
	case checkNetworkName(n.Name) != nil:
		return fmt.Errorf("name %q", n.Name)
	case n.driver().Name != n.Driver || n.Driver == "":
		return fmt.Errorf("driver %q", n.Driver)
	}
	for _, p := range n.Pools {
		if !p.Subnet.IsValid() || p.Subnet != p.Subnet.Masked() || p.Gateway.IsValid() &&
			!p.Subnet.Contains(p.Gateway) && !p.routerByLink(n.IsDirect()) ||
			p.Range.IsValid() && !p.Subnet.Contains(p.Range.Addr()) {
			return fmt.Errorf("subnet %s, range %s, gateway %s", p.Subnet, p.Range, p.Gateway)
		}
	}
	return nil
}

// check does the same for a container.
func (c *Container) check(id string) error {
	switch {
	case c.ID != id || !idForm().MatchString(id):
		return fmt.Errorf("id %q", c.ID)
	case !nameForm().MatchString(c.Name):
		return fmt.Errorf("name %q", c.Name)
	case !slices.Contains([]Status{Created, Running, Restarting, Exited}, c.Status):
		return fmt.Errorf("status %q", c.Status)
	}
	for _, e := range c.Endpoints {
		switch {
		case e == nil:
			return errors.New("an empty endpoint")
		case !idForm().MatchString(e.ID) || !idForm().MatchString(e.NetworkID):
			return fmt.Errorf("endpoint %q on network %q", e.ID, e.NetworkID)
		case e.IPv4.IsValid() && !e.IPv4.Addr().Is4() || e.IPv6.IsValid() && !e.IPv6.Addr().Is6():
			return fmt.Errorf("endpoint with addresses %s and %s", e.IPv4, e.IPv6)
		}
	}
	return nil
}
