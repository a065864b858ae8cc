package table

import (
	"context"
	"encoding/json"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// storedRow is a row on disk.
type storedRow struct {
	Value       json.RawMessage `json:"value"`
	Owner       overlay.HostID  `json:"owner"`
	Incarnation uint64          `json:"incarnation"`
	Version     uint64          `json:"version"`
	Claimed     int64           `json:"claimed,omitempty"`
	// Gone marks a row of this host that is still to be deleted in the backend.
	Gone bool `json:"gone,omitempty"`
	// Base is what an edit of this host was made of that is still to be sent.
	Base *storedRow `json:"base,omitempty"`
}

func stored(row Row) storedRow {
	return storedRow{
		Value: row.Value, Owner: row.Owner, Incarnation: row.Incarnation, Version: row.Version, Claimed: row.Claimed,
	}
}

func (s storedRow) row(key string) Row {
	return Row{
		Key: key, Value: s.Value, Owner: s.Owner, Incarnation: s.Incarnation, Version: s.Version, Claimed: s.Claimed,
	}
}

// load reads the replica. Rows that make no sense are left out: the backend has them.
func (t *Table) load() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cfg.Store.View(context.Background(), func(tx network.Tx) error {
		return tx.All(bucketRows, func(key string, value []byte) error {
			var s storedRow
			if err := json.Unmarshal(value, &s); err != nil {
				t.log.Warn("a record of the cluster's replica cannot be read", "key", clip(key), "error", err)
				return nil
			}
			row := s.row(key)
			if s.Gone {
				t.mu.gone[key] = row
				return nil
			}
			if s.Base != nil && row.Owner == t.cfg.Host {
				row.Incarnation = t.cfg.Incarnation
				t.mu.edits[key], t.mu.dirty[key] = edit{base: s.Base.row(key)}, true
			}
			t.store(row) // what the backend lacks of it is put again once its list has come
			return nil
		})
	})
}

// save writes what changed to disk.
func (t *Table) save() error {
	t.mu.Lock()
	todo := map[string][]byte{}
	for key := range t.mu.unsent {
		todo[key] = nil
		row, gone := t.mu.gone[key]
		e := t.mu.rows[key]
		if e != nil {
			row, gone = e.Row, false
		}
		if e == nil && !gone {
			continue
		}
		s := stored(row)
		s.Gone = gone
		if edit, is := t.mu.edits[key]; is && !edit.sent {
			base := stored(edit.base)
			s.Base = &base
		}
		value, err := json.Marshal(s)
		if err != nil {
			t.mu.Unlock()
			return err
		}
		todo[key] = value
	}
	t.mu.unsent = map[string]bool{} // one that is cleared stays as large as it was
	t.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	_, err := t.cfg.Store.Update(context.Background(), func(tx network.Tx) error {
		for key, value := range todo {
			if value == nil {
				if err := tx.Delete(bucketRows, key); err != nil {
					return err
				}
				continue
			}
			if err := tx.Put(bucketRows, key, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.mu.Lock()
		for key := range todo {
			t.mu.unsent[key] = true
		}
		t.mu.Unlock()
	}
	return err
}
