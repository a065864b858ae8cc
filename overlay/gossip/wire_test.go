package gossip

import (
	"bytes"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/table"
)

func TestRowsComeBackAsTheyWere(t *testing.T) {
	row := table.Row{
		Key: "eps/n/10.0.0.1", Value: []byte(`{"a":1}`), Owner: hostID(3), Incarnation: 1 << 62, Version: 9, Claimed: 1 << 61, Deleted: true,
	}
	r := &reader{b: appendRow(nil, row)}
	got, err := r.row()
	id := identity(row.Key, row.Owner)
	if err != nil || got.Key != row.Key || fingerprint(id, got) != fingerprint(id, row) ||
		!bytes.Equal(got.Value, row.Value) || len(r.b) != 0 {
		t.Errorf("%+v, %v; want %+v", got, err, row)
	}
}

// FuzzMessages gives a host messages that only a member could send: it takes rows within their bounds, or counts.
func FuzzMessages(f *testing.F) {
	row := table.Row{Key: "hosts/a", Value: []byte("{}"), Owner: hostID(1), Version: 1}
	f.Add(appendRow([]byte{msgRows}, row))
	f.Add(append([]byte{msgSummary, 1, 'x'}, make([]byte, buckets/8+16)...))
	f.Add(append([]byte{msgNeed, 1, 'x'}, make([]byte, 8)...))
	f.Add(append([]byte{msgDigest, 1, 'x'}, make([]byte, 8*buckets)...))
	f.Add([]byte{9})
	c := &cluster{}
	config := Config{Host: hostID(0), Incarnation: 1, Keys: [][]byte{testKey}, Transport: c.net.Host()}
	b, err := New(config)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Close() })
	f.Fuzz(func(t *testing.T, message []byte) {
		(*delegate)(b).NotifyMsg(message)
		b.mu.Lock()
		defer b.mu.Unlock()
		for r := range b.mu.state.all() {
			if n := len(b.mu.state.owners(r.key)); len(r.key) > 2048 || n > maxOwners {
				t.Errorf("key %q with %d registers", r.key, n)
			}
		}
	})
}

// TestTheDigestIsThatOfTheRows writes and forgets rows, and compares the digest with one that is made anew.
func TestTheDigestIsThatOfTheRows(t *testing.T) {
	s, now := newState(nil), time.Now()
	for i := range 2000 {
		row := table.Row{Key: string(rune('a' + i%50)), Owner: hostID(i % 7), Version: uint64(i % 13),
			Deleted: i%3 == 0, Value: []byte{byte(i)}}
		s.merge(row, now)
		if i%500 == 0 {
			s.bury(now.Add(2 * tombstoneTTL))
		}
	}
	var want [buckets]uint64
	n := 0
	for r := range s.all() {
		id := identity(r.key, r.owner.Value())
		want[bucketOf(id)] ^= fingerprint(id, r.row())
		n++
	}
	if s.digest != want || n != s.rows || s.byKey.used != n {
		t.Errorf("the digest is another; %d rows, %d counted, %d by key", n, s.rows, s.byKey.used)
	}
	s.bury(now.Add(2 * tombstoneTTL))
	if len(s.graves) != 0 {
		t.Errorf("%d tombstones are remembered", len(s.graves))
	}
	for r := range s.all() {
		if r.deleted {
			t.Errorf("%q of %s is remembered as deleted", r.key, r.owner.Value())
		}
	}
}
