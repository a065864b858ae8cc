package table

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
)

// entry is a row in memory. What is in it is never changed, but replaced.
type entry struct {
	Row
	key    overlay.ParsedKey
	record any // overlay.Host, Network, Endpoint, Block, Name or Route
	// missing is since when a backend that was put back lacks the row; zero: it has it.
	missing time.Time
}

// store puts a row into memory, which has to make sense, and notes what that changes. The caller holds mu.
func (t *Table) store(row Row) {
	k, err := overlay.ParseKey(row.Key)
	if err != nil {
		return
	}
	record, err := decode(k, row.Value)
	if err != nil {
		return
	}
	e := &entry{Row: row, key: k, record: record}
	t.mu.rows[row.Key] = e
	t.mu.unsent[row.Key] = true
	if k.Kind == overlay.KindEndpoint {
		if t.mu.byNet[k.Network] == nil {
			t.mu.byNet[k.Network] = map[string]*entry{}
		}
		t.mu.byNet[k.Network][row.Key] = e
	}
	t.note(k)
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
	if e.key.Kind == overlay.KindEndpoint {
		delete(t.mu.byNet[e.key.Network], key)
		if len(t.mu.byNet[e.key.Network]) == 0 {
			delete(t.mu.byNet, e.key.Network)
		}
	}
	t.note(e.key)
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

// replace puts an entry in the place of another with the same record. The caller holds mu.
func (t *Table) replace(e *entry) {
	t.mu.rows[e.Key] = e
	if e.key.Kind == overlay.KindEndpoint {
		t.mu.byNet[e.key.Network][e.Key] = e
	}
	t.mu.unsent[e.Key] = true
}
