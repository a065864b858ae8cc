package kv

import (
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

func TestRowsComeBackAsTheyWere(t *testing.T) {
	row := table.Row{
		Key: "hosts/a", Value: []byte(`{"id":"x"}`), Owner: overlay.NewHostID(), Incarnation: 1 << 60, Version: 7, Claimed: 5,
	}
	b, err := encodeRow(row)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRow(Pair{Key: row.Key, Value: b})
	if err != nil || got.Owner != row.Owner || got.Incarnation != row.Incarnation || got.Version != 7 || got.Claimed !=
		5 ||
		string(got.Value) != string(row.Value) {
		t.Errorf("%+v, %v; want %+v", got, err, row)
	}
}

func TestForeignValuesAreNoRows(t *testing.T) {
	owner := string(overlay.NewHostID())
	for _, v := range []string{
		"", "x", "{}", "[]", "null", `{"owner":"me"}`, `{"owner":"` + owner + `","more":1}`, `{"owner":"` + owner + `"} {}`,
		`{"owner":"` + owner + `","record":"` + strings.Repeat("x", maxValue) + `"}`,
	} {
		if row, err := decodeRow(Pair{Key: "hosts/a", Value: []byte(v)}); err == nil {
			t.Errorf("%.60q is the row %+v", v, row)
		}
	}
	if _, err := decodeRow(Pair{Key: strings.Repeat("k", overlay.MaxKey+1), Value: []byte(`{"owner":"` + owner + `"}`)}); err == nil {
		t.Error("a key that is too long is taken")
	}
	if _, err := encodeRow(table.Row{Key: "k", Value: make([]byte, overlay.MaxRecord+1)}); err == nil {
		t.Error("a record that is too long is written")
	}
}
