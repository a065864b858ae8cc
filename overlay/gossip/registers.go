package gossip

import (
	"bytes"
	"strings"
	"sync"
	"unique"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// register is what one host last wrote to a key. It never changes, but is replaced.
type register struct {
	key         string
	value       []byte
	owner       unique.Handle[overlay.HostID] // a host has many registers
	id          uint64                        // identity
	print       uint64                        // fingerprint
	incarnation uint64
	version     uint64
	claimed     int64
	deleted     bool
}

// row is the register as a row, with the register's bytes.
func (r *register) row() table.Row {
	return table.Row{
		Key: r.key, Value: r.value, Owner: r.owner.Value(), Incarnation: r.incarnation, Version: r.version,
		Claimed: r.claimed, Deleted: r.deleted,
	}
}

// ref is the number of a register. Numbers take half the memory of pointers, and the garbage collector does not look at
// them.
type ref uint32

// chunkLen is how many registers are allocated at once.
const chunkLen = 256

// registers have numbers. Those that were dropped are given out again.
type registers struct {
	chunks [maxRows/chunkLen + 1]*[chunkLen]register // one more: a register is added before the one it replaces goes
	used   ref
	free   []ref
}

func (a *registers) at(n ref) *register { return &a.chunks[n/chunkLen][n%chunkLen] }

// add makes a register of a row's bytes, which are copied, and of its identity.
func (a *registers) add(row table.Row, id uint64) ref {
	n := a.used
	if last := len(a.free) - 1; last >= 0 {
		n, a.free = a.free[last], a.free[:last]
	} else if a.used++; n%chunkLen == 0 {
		a.chunks[n/chunkLen] = new([chunkLen]register)
	}
	*a.at(n) = register{
		key: strings.Clone(row.Key), value: bytes.Clone(row.Value), owner: unique.Make(row.Owner),
		id: id, print: fingerprint(id, row), incarnation: row.Incarnation, version: row.Version,
		claimed: row.Claimed, deleted: row.Deleted,
	}
	return n
}

func (a *registers) drop(n ref) {
	*a.at(n) = register{}
	a.free = append(a.free, n)
}

// Shared are registers that all hosts of one process have in common, for simulations of many hosts: each then has an
// index of its own alone. A register stays for as long as Shared does.
type Shared struct {
	mu  sync.Mutex // guards what follows; registers whose numbers were given out are read without it
	all registers
	by  map[writing]ref
}

// writing tells what a register says, except for its value.
type writing struct {
	id, incarnation, version uint64
	claimed                  int64
	deleted                  bool
}

// add makes a register, or finds the one that says the same.
func (s *Shared) add(row table.Row, id uint64) ref {
	w := writing{id, row.Incarnation, row.Version, row.Claimed, row.Deleted}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, is := s.by[w]; is && bytes.Equal(s.all.at(n).value, row.Value) {
		return n
	}
	n := s.all.add(row, id)
	if s.by == nil {
		s.by = map[writing]ref{}
	}
	s.by[w] = n
	return n
}
