package boltstore

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/network/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) network.Store {
		d, err := Open(filepath.Join(t.TempDir(), "db"))
		if err != nil {
			t.Fatal(err)
		}
		d.bolt.NoSync = true
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	})
}

// TestRevisionsOutliveTheProcess opens a store again: its revision and records are those from before.
func TestRevisionsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var last network.Revision
	for range 3 {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Update(t.Context(), func(tx network.Tx) error {
			if tx.Revision() != last {
				t.Errorf("the revision is %d, want %d", tx.Revision(), last)
			}
			return tx.Put("a", "x", []byte("y"))
		})
		if err != nil || r <= last {
			t.Fatal(r, err)
		}
		last = r
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedRecordsNameTheFile stores records that make no sense to the model. What was copied before is sound, and
// stays.
func TestDamagedRecordsNameTheFile(t *testing.T) {
	for id, value := range map[string]string{
		strings.Repeat("a", 64): `{"id":"` + strings.Repeat("a", 64) + `","name":"c1","status":"asleep"}`,
		strings.Repeat("b", 64): `{`,
		"short":                 `{"id":"short","name":"c1","status":"running"}`,
	} {
		path := filepath.Join(t.TempDir(), "db")
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SaveCopy(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Update(t.Context(), func(tx network.Tx) error {
			return tx.Put("containers", id,
				[]byte(value))
		}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		m, err := OpenModel(path, network.Options{})
		if err == nil {
			t.Fatalf("%s is taken: %v", value, m.Containers())
		}
		checkAdvice(t, path, err)
		if m, err = OpenModel(path, network.Options{}); err != nil {
			t.Fatalf("what was put in its place is damaged too: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
