package gossip

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// model is a state as maps.
type model map[string]map[overlay.HostID]table.Row

// TestStateIsAMapOfRegisters writes and forgets rows at random, in a state and in maps.
func TestStateIsAMapOfRegisters(t *testing.T) {
	for name, shared := range map[string]*Shared{"own registers": nil, "shared registers": {}} {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			s, want, now := newState(shared), model{}, time.Unix(0, 0)
			for range 20_000 {
				row := table.Row{
					Key: fmt.Sprint("key", random.IntN(1500)), Owner: hostID(random.IntN(3)),
					Version:     random.Uint64N(4),
					Incarnation: random.Uint64N(2), Deleted: random.IntN(3) == 0, Value: []byte{byte(random.IntN(3))},
				}
				have, is := want[row.Key][row.Owner]
				r, took := s.merge(row, now)
				if took != (!is || later(row, have)) {
					t.Fatalf("%+v was taken: %v; there was %+v", row, took, have)
				}
				if took {
					if !r.row().Same(row) {
						t.Fatalf("%+v was taken as %+v", row, r.row())
					}
					if want[row.Key] == nil {
						want[row.Key] = map[overlay.HostID]table.Row{}
					}
					want[row.Key][row.Owner] = row
				}
				if now = now.Add(time.Second); random.IntN(500) == 0 {
					s.bury(now.Add(tombstoneTTL + time.Second))
					want.bury()
				}
			}
			want.compare(t, s)
		})
	}
}

// bury forgets all that was deleted.
func (m model) bury() {
	for key, list := range m {
		maps.DeleteFunc(list, func(_ overlay.HostID, row table.Row) bool { return row.Deleted })
		if len(list) == 0 {
			delete(m, key)
		}
	}
}

// compare compares all ways to a register.
func (m model) compare(t *testing.T, s *state) {
	t.Helper()
	n := 0
	for key, list := range m {
		if owners := s.owners(key); !slices.Equal(owners, slices.Sorted(maps.Keys(list))) {
			t.Errorf("%s: owners %v, want %v", key, owners, list)
		}
		for owner, row := range list {
			n++
			id := identity(key, owner)
			got, is := s.get(key, owner)
			if r, found := s.byIdentity(id); !is || !found || fingerprint(id, got) != fingerprint(id, row) ||
				r.print != fingerprint(id, row) || r.key != key || r.owner.Value() != owner {
				t.Errorf("%s of %s: %+v, %v, %v; want %+v", key, owner, got, is, found, row)
			}
		}
	}
	var all []known
	for r := range s.all() {
		all = append(all, known{r.id, r.print})
	}
	if len(all) != n || s.rows != n || !slices.IsSortedFunc(all, byBucket) {
		t.Errorf("%d registers in order, %d counted; want %d", len(all), s.rows, n)
	}
	if _, is := s.get("no key", hostID(1)); is {
		t.Error("a key that nobody wrote is there")
	}
}

// TestSummariesAreCompared: what one side lacks, or has otherwise, goes to it, and the other way round; in any order.
func TestSummariesAreCompared(t *testing.T) {
	b := &Backend{}
	b.mu.state = newState(nil)
	in := new([buckets]bool)
	var have []known
	var give, want []uint64
	for i := range 3000 {
		row := table.Row{Key: fmt.Sprint("key", i), Owner: hostID(1), Version: 1}
		id := identity(row.Key, row.Owner)
		print := fingerprint(id, row)
		in[bucketOf(id)] = bucketOf(id)%3 != 0
		if i%4 != 3 { // this side has it
			b.mu.state.merge(row, time.Time{})
		}
		if i%4 == 1 { // the other has it otherwise
			print++
		}
		if !in[bucketOf(id)] {
			continue
		}
		if i%4 != 2 { // the other side has it
			have = append(have, known{id, print})
		}
		if i%4 == 1 || i%4 == 2 {
			give = append(give, id)
		}
		if i%4 == 1 || i%4 == 3 {
			want = append(want, id)
		}
	}
	gotGive, gotWant := b.compareSummary(job{in: in, have: have})
	for _, list := range [][]uint64{give, want, gotGive, gotWant} {
		slices.SortFunc(list, cmp.Compare[uint64])
	}
	if !slices.Equal(gotGive, give) || !slices.Equal(gotWant, want) {
		t.Errorf("gives %d and wants %d; should be %d and %d", len(gotGive), len(gotWant), len(give), len(want))
	}
}

// TestKeysOfOneIdentity has rows of two keys that were made to have the same identity: the first alone is taken, and
// all else stays whole.
func TestKeysOfOneIdentity(t *testing.T) {
	const first, second = "8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"
	s, now := newState(nil), time.Now()
	merge := func(key string, owner overlay.HostID, version uint64) bool {
		_, news := s.merge(table.Row{Key: key, Owner: owner, Version: version}, now)
		return news
	}
	for i := range 60 {
		owner := hostID(i)
		if identity(first, owner) != identity(second, owner) {
			t.Fatal("the keys have different identities: find others")
		}
		for version := uint64(1); version < 5; version++ {
			if !merge(first, owner, version) || merge(second, owner, version) {
				t.Fatalf("version %d: the first is to be taken, and the second is not", version)
			}
			merge(fmt.Sprint("other", i, version), owner, 1) // takes the number of what was dropped
		}
	}
	seen := map[string]bool{}
	for r := range s.all() {
		k := r.key + " " + string(r.owner.Value())
		if seen[k] {
			t.Errorf("%s is listed twice", k)
		}
		seen[k] = true
	}
	if len(seen) != s.rows || s.rows != 60*5 {
		t.Errorf("%d rows are listed, of %d", len(seen), s.rows)
	}
}
