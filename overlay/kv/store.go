package kv

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"
)

// Revision is when a key was last changed, in the store's own unit. That of one key only grows, unless a backup was
// restored.
type Revision uint64

// Conditions of Put and Delete besides the revision that a key has to have.
const (
	Absent   Revision = 0              // the key must not be there
	Whatever Revision = math.MaxUint64 // no condition
)

// Pair is a key with its value.
type Pair struct {
	Key      string // without the store's prefix
	Value    []byte
	Revision Revision
}

// State tells one state of a store from an older one.
type State struct {
	// ID is of the store's data as a whole, where the store has one: a restored backup may have another.
	ID string
	// Revision grows with each key that is made or deleted below the prefix, at least. It is less after a backup was
	// restored.
	Revision uint64
}

// EventKind says what an Event is.
type EventKind uint8

// What Store.Watch yields.
const (
	EventList   EventKind = iota + 1 // List is all that there is below the prefix, in State
	EventPut                         // Pair was written
	EventDelete                      // Pair.Key was deleted, or its lease ended
)

// Event is one thing that a store tells.
type Event struct {
	Kind  EventKind
	Pair  Pair
	List  []Pair
	State State // that the event made, where it is known
}

// Store is a key-value store, and the keys below one prefix of it. Its methods may be called at the same time, and
// return when their context is done. An error is ErrNotFound, ErrConflict, a *RefusedError, or says why the store
// cannot be reached.
type Store interface {
	// Get reads a key.
	Get(ctx context.Context, key string) (Pair, error)

	// Put writes a key if it has the revision is; else it is ErrConflict. With a lease, the key goes with the lease; a
	// key that was written with one has to be written with one ever after. A value is never empty.
	Put(ctx context.Context, key string, value []byte, is Revision, lease Lease) error

	// Delete removes a key if it has the revision is, which is not Absent; else it is ErrConflict. A key that is not
	// there is no error.
	Delete(ctx context.Context, key string, is Revision) error

	// Watch yields EventList and then each change, in the order in which one key changes. It ends with ctx, or with an
	// error after which the caller calls it again: changes were missed.
	Watch(ctx context.Context) iter.Seq2[Event, error]

	// Lease makes a lease that ends ttl after this process was last heard of, and keeps it alive until it is lost or
	// revoked. Stores round ttl up.
	Lease(ctx context.Context, ttl time.Duration) (Lease, error)

	// Close frees what the store has here. Leases end by themselves, unless they were revoked.
	Close() error
}

// Lease is what keys hang on that go when their writer is not heard of any more.
type Lease interface {
	// Lost is closed when the lease has ended, or can no longer be kept alive.
	Lost() <-chan struct{}
	// Revoke ends the lease and deletes its keys.
	Revoke(ctx context.Context) error
}

// Outcomes that callers decide on.
var (
	ErrNotFound = errors.New("no such key")
	ErrConflict = errors.New("the key has changed")
)

// RefusedError says that a store was reached and does not do it: credentials, permissions, a value that is too large.
type RefusedError struct{ Err error }

// Error returns the reason.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }
