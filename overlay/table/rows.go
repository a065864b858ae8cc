package table

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usernet/usernet/overlay"
)

// entry is a row in memory. What is in it is never changed, but replaced. There are as many as the cluster has
// endpoints: what the key or the record says is not here once more.
type entry struct {
	Row
	record any // overlay.Host, Network, Endpoint, Block, Name or Route
	// missing is since when a backend that was put back lacks the row; nil: it has it.
	missing *time.Time
}

// kind is the key's.
func (e *entry) kind() overlay.Kind {
	kind, _, _ := strings.Cut(e.Key, "/")
	return overlay.Kind(kind)
}

// endpoint is the record, where the row is that of the endpoint's first address: each address has one.
func (e *entry) endpoint() (r overlay.Endpoint, is bool) {
	r = e.record.(overlay.Endpoint)
	if len(r.Addrs) == 1 {
		return r, true
	}
	var text [64]byte
	first := r.Addrs[0].AppendTo(text[:0])
	return r, e.Key[strings.LastIndexByte(e.Key, '/')+1:] == string(first)
}

// store puts a row into memory, which has to make sense, and notes what that changes. The caller holds mu.
func (t *Table) store(row Row) {
	k, err := overlay.ParseKey(row.Key)
	if err != nil {
		return
	}
	if record, err := decode(k, row.Value); err == nil {
		t.enter(k, row, record)
	}
}

// enter puts a row into memory whose key and record were read. The caller holds mu.
func (t *Table) enter(k overlay.ParsedKey, row Row, record any) {
	t.replace(&entry{Row: row, record: shareTexts(k, row, record)})
	t.note(k)
}

// shareTexts has a record refer to the texts of its row, where they are equal.
func shareTexts(k overlay.ParsedKey, row Row, record any) any {
	r, is := record.(overlay.Endpoint)
	if !is {
		return record
	}
	r.Network = k.Network
	if r.Host == row.Owner {
		r.Host = row.Owner
	}
	return r
}

// remove takes a row out of memory. The caller holds mu.
func (t *Table) remove(key string) {
	e := t.mu.rows[key]
	if e == nil {
		return
	}
	delete(t.mu.rows, key)
	delete(t.mu.edits, key)
	t.mu.unsent[key] = true
	if r, is := e.record.(overlay.Endpoint); is {
		delete(t.mu.byNet[r.Network], e)
		if len(t.mu.byNet[r.Network]) == 0 {
			delete(t.mu.byNet, r.Network)
		}
	}
	if k, err := overlay.ParseKey(key); err == nil {
		t.note(k)
	}
}

// note remembers that a key changed. The caller holds mu.
func (t *Table) note(k overlay.ParsedKey) {
	switch k.Kind {
	case overlay.KindNetwork:
		t.mu.pending.Networks[k.Network] = true
	case overlay.KindEndpoint:
		t.mu.pending.Endpoints[k.Network] = true
	case overlay.KindHost, overlay.KindAlive:
		t.mu.pending.Hosts = true
	case overlay.KindRoute:
		t.mu.pending.Routes = true
	default:
		return
	}
	t.tell()
}

// decode reads the record of a key's kind, and holds it to its key.
func decode(k overlay.ParsedKey, value []byte) (any, error) {
	bad := errors.New("the record belongs to another key")
	switch k.Kind {
	case overlay.KindHost:
		r, err := overlay.Decode[overlay.Host](value)
		if err == nil && r.ID != k.Host {
			err = bad
		}
		return r, err
	case overlay.KindNetwork:
		r, err := overlay.Decode[overlay.Network](value)
		if err == nil && r.ID != k.Network {
			err = bad
		}
		return r, err
	case overlay.KindName, overlay.KindPool, overlay.KindVNI:
		return overlay.Decode[overlay.Name](value)
	case overlay.KindBlock:
		r, err := overlay.Decode[overlay.Block](value)
		if err == nil && (r.Network != k.Network || r.Prefix != k.Prefix) {
			err = bad
		}
		return r, err
	case overlay.KindRoute:
		r, err := overlay.Decode[overlay.Route](value)
		if err == nil && r.Prefix != k.Prefix {
			err = bad
		}
		return r, err
	case overlay.KindEndpoint:
		r, err := overlay.Decode[overlay.Endpoint](value)
		if err == nil && (r.Network != k.Network || !slices.Contains(r.Addrs, k.Addr)) {
			err = bad
		}
		return r, err
	}
	return nil, fmt.Errorf("a record of kind %s", k.Kind)
}

// replace puts an entry in the place of what is there. The caller holds mu.
func (t *Table) replace(e *entry) {
	if r, is := e.record.(overlay.Endpoint); is {
		if t.mu.byNet[r.Network] == nil {
			t.mu.byNet[r.Network] = map[*entry]struct{}{}
		}
		delete(t.mu.byNet[r.Network], t.mu.rows[e.Key])
		t.mu.byNet[r.Network][e] = struct{}{}
	}
	t.mu.rows[e.Key] = e
	t.mu.unsent[e.Key] = true
}
