package handover

import (
	"iter"
	"maps"

	"golang.org/x/sys/unix"
)

// Set is a table of descriptors, which it owns. The zero value and nil are empty tables; nil takes nothing in. It is
// for one goroutine at a time.
type Set struct {
	fds map[ID]int
}

// Put takes fd over. Where there is one of the same ID already, that one is closed.
func (s *Set) Put(id ID, fd int) {
	if old, twice := s.fds[id]; twice {
		_ = unix.Close(old) // a copy
	}
	if s.fds == nil {
		s.fds = map[ID]int{}
	}
	s.fds[id] = fd
}

// Take removes a descriptor, which becomes the caller's.
func (s *Set) Take(id ID) (fd int, ok bool) {
	if s == nil {
		return -1, false
	}
	fd, ok = s.fds[id]
	delete(s.fds, id)
	return fd, ok
}

// TakeKind removes all descriptors of a kind, which become the caller's.
func (s *Set) TakeKind(kind Kind) []int {
	var list []int
	for id := range s.All() {
		if id.Kind == kind {
			fd, _ := s.Take(id)
			list = append(list, fd)
		}
	}
	return list
}

// Merge moves all of other into s.
func (s *Set) Merge(other *Set) {
	for id := range other.All() {
		fd, _ := other.Take(id)
		s.Put(id, fd)
	}
}

// All is what the table has. Descriptors may be taken meanwhile.
func (s *Set) All() iter.Seq2[ID, int] {
	if s == nil {
		return func(func(ID, int) bool) {}
	}
	return maps.All(s.fds)
}

// Count is the number of descriptors of a kind.
func (s *Set) Count(kind Kind) int {
	n := 0
	for id := range s.All() {
		if id.Kind == kind {
			n++
		}
	}
	return n
}

// Close closes what nobody has taken. Closing again does nothing.
func (s *Set) Close() {
	for id, fd := range s.All() {
		_ = unix.Close(fd) // copies, or what no daemon will use
		delete(s.fds, id)
	}
}

// Sink keeps copies of descriptors beyond the end of this process. Its methods may be called by many goroutines at
// once.
type Sink interface {
	// Put stores a copy of fd, as far as there is room. fd stays the caller's.
	Put(id ID, fd int)
	// Remove forgets what was stored as id.
	Remove(id ID)
	// Barrier returns when the copies that were removed before are closed, or when that takes too long to wait for.
	Barrier()
}

// Flow is a TCP connection that a daemon has let go of, and another can carry on.
type Flow struct {
	Network string // id
	State   []byte `json:",omitempty"` // JSON of the forwarder's; opaque here
	Count   int    // of descriptors
	FDs     []int  `json:"-"` // go beside the message; owned by who has the Flow
}

// Close closes the connection's descriptors, which resets it.
func (f *Flow) Close() {
	for _, fd := range f.FDs {
		_ = unix.Close(fd)
	}
	f.FDs = nil
}
