package gossip

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// Bounds of what a host remembers.
const (
	// maxRows is the number of registers, at some 600 bytes each.
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
	keys   map[string][]register // sorted by owner
	byID   map[uint64]string     // the key of a register's identity
	digest [buckets]uint64       // exclusive or of the fingerprints
	rows   int                   // registers
	graves []grave               // tombstones, the oldest first; some are replaced meanwhile
	full   int                   // rows that were refused since there was no room
}

// register is what one host last wrote to a key.
type register struct {
	row   table.Row
	print uint64 // fingerprint
}

// grave is a tombstone that is to be forgotten.
type grave struct {
	key   string
	owner overlay.HostID
	print uint64
	since time.Time
}

func newState() *state {
	return &state{keys: map[string][]register{}, byID: map[uint64]string{}}
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

// visible is what a key says.
func (s *state) visible(key string) (table.Row, bool) {
	var best table.Row
	found := false
	for _, r := range s.keys[key] {
		if !r.row.Deleted && (!found || better(r.row, best)) {
			best, found = r.row, true
		}
	}
	return best, found
}

func (s *state) find(key string, owner overlay.HostID) (int, bool) {
	return slices.BinarySearchFunc(
		s.keys[key],
		owner,
		func(r register, o overlay.HostID) int { return cmp.Compare(r.row.Owner, o) },
	)
}

// get is what a host last wrote to a key.
func (s *state) get(key string, owner overlay.HostID) (table.Row, bool) {
	i, is := s.find(key, owner)
	if !is {
		return table.Row{}, false
	}
	return s.keys[key][i].row, true
}

// owners are the hosts that have written to a key.
func (s *state) owners(key string) (list []overlay.HostID) {
	for _, r := range s.keys[key] {
		list = append(list, r.row.Owner)
	}
	return list
}

// merge takes over a row if it is later than what is known, and says whether it did.
func (s *state) merge(row table.Row, now time.Time) bool {
	i, is := s.find(row.Key, row.Owner)
	list := s.keys[row.Key]
	switch {
	case is && !later(row, list[i].row):
		return false
	case !is && (s.rows >= maxRows || len(list) >= maxOwners):
		s.full++
		return false
	}
	id := identity(row.Key, row.Owner)
	r := register{row, fingerprint(row)}
	s.digest[bucketOf(id)] ^= r.print
	if is {
		s.digest[bucketOf(id)] ^= list[i].print
		list[i] = r
	} else {
		s.keys[row.Key] = slices.Insert(list, i, r)
		s.byID[id] = row.Key
		s.rows++
	}
	if row.Deleted {
		s.graves = append(s.graves, grave{row.Key, row.Owner, r.print, now})
	}
	return true
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
	i, is := s.find(g.key, g.owner)
	if !is || s.keys[g.key][i].print != g.print {
		return // it was written again
	}
	id := identity(g.key, g.owner)
	s.digest[bucketOf(id)] ^= g.print
	delete(s.byID, id)
	s.rows--
	if s.keys[g.key] = slices.Delete(s.keys[g.key], i, i+1); len(s.keys[g.key]) == 0 {
		delete(s.keys, g.key)
	}
}

// each calls f for each register in some buckets; all of them where in is nil.
func (s *state) each(in *[buckets]bool, f func(id uint64, r register)) {
	for id, key := range s.byID {
		if in != nil && !in[bucketOf(id)] {
			continue
		}
		for _, r := range s.keys[key] {
			if identity(key, r.row.Owner) == id {
				f(id, r)
			}
		}
	}
}
