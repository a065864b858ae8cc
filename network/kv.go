package network

import (
	"context"
	"errors"
	"iter"
)

// Bucket names one kind of records in a Store.
type Bucket string

// The buckets of a Model.
const (
	bucketNetworks   Bucket = "networks"   // id -> Network
	bucketContainers Bucket = "containers" // id -> Container, without its ports
	bucketPorts      Bucket = "ports"      // container's id/key -> PortBinding as it was asked for
	bucketBound      Bucket = "bound"      // container's id/key -> PortBinding as it was bound last
	bucketMeta       Bucket = "meta"       // schema, ula
)

// Revision counts the changes of a store. It only grows, by one or more with each Update that changes something.
type Revision uint64

// Change is a record that was put or removed.
type Change struct {
	Revision Revision // of the store with it
	Bucket   Bucket
	ID       string
	Value    []byte // nil: removed
}

// Tx is a store's content at one revision. It is valid until the function that it was given to returns, and used by one
// goroutine.
type Tx interface {
	Revision() Revision
	// All calls f with each record of a bucket, in order of ids, until f returns an error, which it returns. value is
	// valid until f returns.
	All(b Bucket, f func(id string, value []byte) error) error
	// Get returns a copy of a record, nil where there is none.
	Get(b Bucket, id string) []byte
	// Put and Delete change the records once the transaction is stored. In a View they fail.
	Put(b Bucket, id string, value []byte) error
	Delete(b Bucket, id string) error
}

// Store keeps records for a Model: on this machine (package boltstore), in memory (MemoryStore), or where other
// machines keep theirs too. Its methods may be called at the same time.
type Store interface {
	// View calls f with the latest content, and returns f's error.
	View(ctx context.Context, f func(Tx) error) error
	// Update calls f, stores what it put and deleted, all of it or nothing, and returns the store's revision with it.
	// What f returns as an error is returned, and nothing stored. f may be called again where somebody else's change
	// came between, so that it must not change anything but the transaction.
	Update(ctx context.Context, f func(Tx) error) (Revision, error)
	// Watch yields the changes after a revision, in order, and waits for more until ctx ends or the loop is left. Its
	// error is the last that it yields: ErrCompacted where the store no longer has the changes back to from.
	Watch(ctx context.Context, from Revision) iter.Seq2[Change, error]
	// Close frees what the store has. What was stored stays.
	Close() error
}

// Errors of stores.
var (
	// ErrLocked says that another process has a store open that cannot be shared.
	ErrLocked = errors.New("the state is in use by another usernet daemon")
	// ErrDamaged says that a store holds no sound records.
	ErrDamaged = errors.New("the state is damaged")
	// ErrCompacted says that changes so far back are not known any more: read all records anew.
	ErrCompacted = errors.New("changes are not known so far back")
	// ErrReadOnly is for what changes a View.
	ErrReadOnly = errors.New("a View changes nothing")
)
