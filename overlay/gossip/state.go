package gossip

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// Bounds of what a host remembers.
const (
	// maxRows is the number of registers, at some 650 bytes each.
	maxRows = 1 << 20
	// maxOwners is how many hosts' registers one key has. More than two happen only when many hosts claim one key while
	// they are partitioned.
	maxOwners = 64
	// tombstoneTTL is how long a deleted row is remembered: a host that was away for longer may bring it back, and then
	// its owner deletes it once more.
	tombstoneTTL = 30 * time.Minute
	// maxTombstones is how many deleted rows are remembered, the latest.
	maxTombstones = 1 << 17
)

// buckets is how many parts the digest of all rows has.
const buckets = 1024

// state is all that a host knows: registers, and the digest of them. Its user locks.
type state struct {
	registers *registers
	shared    *Shared         // whose registers these are; nil: the state's own
	byKey     index           // all of them
	byID      [buckets][]ref  // all of them, by bucket and then identity
	digest    [buckets]uint64 // exclusive or of the fingerprints
	rows      int             // registers
	graves    []grave         // tombstones, the oldest first; some are replaced meanwhile
	full      int             // rows that were refused since there was no room
}

// grave is a tombstone that is to be forgotten.
type grave struct {
	key   string
	owner overlay.HostID
	print uint64
	since time.Time
}

// newState makes one; shared may be nil.
func newState(shared *Shared) *state {
	if shared != nil {
		return &state{registers: &shared.all, shared: shared}
	}
	return &state{registers: new(registers)}
}

func bucketOf(id uint64) int { return int(id % buckets) }

// later says whether a replaces b, both of one key and owner.
func later(a, b table.Row) bool {
	if c := cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Incarnation, b.Incarnation)); c != 0 {
		return c > 0
	}
	if a.Deleted != b.Deleted {
		return a.Deleted
	}
	if a.Claimed != b.Claimed {
		return a.Claimed < b.Claimed
	}
	return bytes.Compare(a.Value, b.Value) > 0
}

// better says which of two hosts' rows a key has: of claims the older, else the one with the higher version.
func better(a, b table.Row) bool {
	if a.Claimed != 0 && b.Claimed != 0 {
		return table.Older(a, b)
	}
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	return a.Owner < b.Owner
}

// of appends the registers of a key to list, by owner.
func (s *state) of(key string, list []*register) []*register {
	for _, n := range s.byKey.with(hashKey(key)) {
		if r := s.registers.at(n); r.key == key {
			list = append(list, r)
		}
	}
	if len(list) > 1 {
		slices.SortFunc(list, func(a, b *register) int { return cmp.Compare(a.owner.Value(), b.owner.Value()) })
	}
	return list
}

// visible is what a key says.
func (s *state) visible(key string) (table.Row, bool) {
	var best table.Row
	found := false
	var few [2]*register
	list := s.of(key, few[:0])
	if len(list) == 1 && !list[0].deleted { // as of most keys
		return list[0].row(), true
	}
	for _, r := range list {
		if row := r.row(); !row.Deleted && (!found || better(row, best)) {
			best, found = row, true
		}
	}
	return best, found
}

// find finds what a host last wrote to a key, with its slot.
func (s *state) find(hash uint64, key string, owner overlay.HostID) (int, ref, bool) {
	for slot, n := range s.byKey.with(hash) {
		if r := s.registers.at(n); r.key == key && r.owner.Value() == owner {
			return slot, n, true
		}
	}
	return 0, 0, false
}

// get is what a host last wrote to a key.
func (s *state) get(key string, owner overlay.HostID) (table.Row, bool) {
	_, n, is := s.find(hashKey(key), key, owner)
	if !is {
		return table.Row{}, false
	}
	return s.registers.at(n).row(), true
}

// owners are the hosts that have written to a key.
func (s *state) owners(key string) (list []overlay.HostID) {
	for _, r := range s.of(key, nil) {
		list = append(list, r.owner.Value())
	}
	return list
}

// place finds an identity among those of its bucket.
func (s *state) place(id uint64) (list *[]ref, i int, is bool) {
	list = &s.byID[bucketOf(id)]
	i, is = slices.BinarySearchFunc(
		*list, id, func(n ref, id uint64) int { return cmp.Compare(s.registers.at(n).id, id) },
	)
	return list, i, is
}

// merge takes over a row if it is later than what is known, and says whether it did. It copies the row's bytes, which
// the register has then.
func (s *state) merge(row table.Row, now time.Time) (*register, bool) {
	hash := hashKey(row.Key)
	slot, old, is := s.find(hash, row.Key, row.Owner)
	if is && !later(row, s.registers.at(old).row()) {
		return nil, false
	}
	id := identity(row.Key, row.Owner)
	list, i, identified := s.place(id)
	// Another key has the same identity by intent only: it is no secret how identities are made.
	if !is && (identified || s.rows >= maxRows || len(s.of(row.Key, nil)) >= maxOwners) {
		s.full++
		return nil, false
	}
	n := s.add(row, id)
	r := s.registers.at(n)
	s.digest[bucketOf(id)] ^= r.print
	if is {
		s.digest[bucketOf(id)] ^= s.registers.at(old).print
		s.byKey.set(slot, hash, n)
		(*list)[i] = n
		s.drop(old)
	} else {
		s.byKey.add(hash, n, s.hashOf)
		*list = slices.Insert(*list, i, n)
		s.rows++
	}
	if row.Deleted {
		s.graves = append(s.graves, grave{r.key, r.owner.Value(), r.print, now})
	}
	return r, true
}

func (s *state) hashOf(n ref) uint64 { return hashKey(s.registers.at(n).key) }

func (s *state) add(row table.Row, id uint64) ref {
	if s.shared != nil {
		return s.shared.add(row, id)
	}
	return s.registers.add(row, id)
}

func (s *state) drop(n ref) {
	if s.shared == nil {
		s.registers.drop(n)
	}
}

// bury forgets tombstones that are old enough, or too many.
func (s *state) bury(now time.Time) {
	n := 0
	for n < len(s.graves) && (now.Sub(s.graves[n].since) >= tombstoneTTL || len(s.graves)-n > maxTombstones) {
		s.forget(s.graves[n])
		n++
	}
	s.graves = slices.Delete(s.graves, 0, n)
}

func (s *state) forget(g grave) {
	slot, n, is := s.find(hashKey(g.key), g.key, g.owner)
	if !is || s.registers.at(n).print != g.print {
		return // it was written again
	}
	id := s.registers.at(n).id
	s.digest[bucketOf(id)] ^= g.print
	s.byKey.remove(slot, s.hashOf)
	if list, i, is := s.place(id); is {
		*list = slices.Delete(*list, i, i+1)
	}
	s.rows--
	s.drop(n)
}

// all are the registers.
func (s *state) all() iter.Seq[*register] { return s.each(nil) }

// each are the registers in some buckets, by bucket and then identity; all of them where in is nil.
func (s *state) each(in *[buckets]bool) iter.Seq[*register] {
	return func(yield func(*register) bool) {
		for i := range s.byID {
			if in != nil && !in[i] {
				continue
			}
			for _, n := range s.byID[i] {
				if !yield(s.registers.at(n)) {
					return
				}
			}
		}
	}
}

// byIdentity is a register.
func (s *state) byIdentity(id uint64) (*register, bool) {
	list, i, is := s.place(id)
	if !is {
		return nil, false
	}
	return s.registers.at((*list)[i]), true
}
