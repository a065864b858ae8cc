// Package remote is a kv.Store that another process has: Serve there, New here, and a stream between them.
//
// It is for client libraries that cost too much at the start of every usernet (etcd's), so that they are in a program
// that only a daemon in a cluster starts. Calls have numbers; each is answered once, a watch and a lease many times. A
// call that is given up is cancelled there too. A lease is that of the process here: it ends as well when that is
// stopped or hangs, although the other one would keep it alive.
package remote

import (
	"context"
	"errors"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// op is a kind of request.
type op uint8

const (
	opOpen op = iota + 1 // Location; the first request
	opGet
	opPut
	opDelete
	opWatch
	opLease
	opRevoke
	opCancel // of the call with this number
	opHeard  // the lease's holder runs; it has no answer
)

// request goes to the process that has the store.
type request struct {
	ID       uint64
	Op       op
	Key      string
	Value    []byte
	Revision kv.Revision
	Lease    uint64 // number of the call that made it; 0: none
	TTL      time.Duration
	Location kv.Location
}

// answer comes from there.
type answer struct {
	ID    uint64
	Err   *failure
	Pair  kv.Pair
	Event kv.Event
	Last  bool // no more come
}

// failure is an error.
type failure struct {
	Kind kind
	Text string
}

// heardParts is how many times in its ttl the holder of a lease says that it runs.
const heardParts = 3

type kind uint8

const (
	kindOther kind = iota
	kindNotFound
	kindConflict
	kindRefused
	kindDeadline
	kindCanceled
)

func encodeError(err error) *failure {
	var refused *kv.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kv.ErrNotFound):
		return &failure{Kind: kindNotFound}
	case errors.Is(err, kv.ErrConflict):
		return &failure{Kind: kindConflict}
	case errors.As(err, &refused):
		return &failure{kindRefused, refused.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{kindDeadline, err.Error()}
	case errors.Is(err, context.Canceled):
		return &failure{kindCanceled, err.Error()}
	}
	return &failure{kindOther, err.Error()}
}

func (f *failure) decode() error {
	if f == nil {
		return nil
	}
	switch f.Kind {
	case kindNotFound:
		return kv.ErrNotFound
	case kindConflict:
		return kv.ErrConflict
	case kindRefused:
		return &kv.RefusedError{Err: errors.New(f.Text)}
	case kindDeadline:
		return context.DeadlineExceeded
	case kindCanceled:
		return context.Canceled
	}
	return errors.New(f.Text)
}
