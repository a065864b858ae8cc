package kv

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// maxValue is the size of a value in bytes: a record, and who wrote it.
const maxValue = overlay.MaxRecord + 256

// value is a row as it stands in a store. The key is the store's.
type value struct {
	Owner       overlay.HostID  `json:"owner"`
	Incarnation uint64          `json:"incarnation"`
	Version     uint64          `json:"version"`
	Claimed     int64           `json:"claimed,omitempty"`
	Record      json.RawMessage `json:"record,omitempty"`
}

// encodeRow is a row's value.
func encodeRow(row table.Row) ([]byte, error) {
	if len(row.Key) > overlay.MaxKey || len(row.Value) > overlay.MaxRecord {
		return nil, fmt.Errorf("row %.120q of %d bytes: %d are possible", row.Key, len(row.Value), overlay.MaxRecord)
	}
	b, err := json.Marshal(value{row.Owner, row.Incarnation, row.Version, row.Claimed, row.Value})
	if err != nil {
		return nil, fmt.Errorf("row %q: %w", row.Key, err)
	}
	return b, nil
}

// decodeRow reads what may be anything: others write to the store.
func decodeRow(p Pair) (table.Row, error) {
	if len(p.Key) > overlay.MaxKey || len(p.Value) > maxValue {
		return table.Row{}, fmt.Errorf(
			"key %.120q has a value of %d bytes: %d are possible",
			p.Key,
			len(p.Value),
			maxValue,
		)
	}
	var v value
	d := json.NewDecoder(bytes.NewReader(p.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || d.More() {
		return table.Row{}, fmt.Errorf("key %.120q has a value that is none of usernet's", p.Key)
	}
	if _, err := overlay.ParseHostID(string(v.Owner)); err != nil {
		return table.Row{}, fmt.Errorf("key %.120q: %w", p.Key, err)
	}
	return table.Row{
		Key: p.Key, Value: v.Record, Owner: v.Owner, Incarnation: v.Incarnation, Version: v.Version, Claimed: v.Claimed,
	}, nil
}
