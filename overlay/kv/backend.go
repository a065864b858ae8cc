package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// maxConflicts is how often a call is made again because another host changed the key between its reading and its
// writing. More than two hosts hardly ever want one key.
const maxConflicts = 8

// Config is what a Backend needs besides its store.
type Config struct {
	URL         string // for people, without passwords
	Host        overlay.HostID
	Incarnation uint64
	AliveTTL    time.Duration // 0: table.AliveTTL
	CallTimeout time.Duration // 0: table.CallTimeout
	Log         *slog.Logger  // nil: slog.Default
}

// Backend is a table.Backend by a Store. New makes one.
type Backend struct {
	config Config
	store  Store

	ctx  context.Context // done by Close
	stop context.CancelFunc

	// aliveGone has room for one: the alive/ row of this host is not in the store, or not this life's.
	aliveGone chan struct{}

	health healthState

	// What Watch has seen, of which there is one: the store's last state, and when each row was last changed.
	last State
	seen map[string]Revision

	watching sync.Mutex // held while Watch runs
}

var _ table.Backend = (*Backend)(nil)

// New makes a Backend, which closes the store when it is closed.
func New(store Store, config Config) *Backend {
	if config.AliveTTL == 0 {
		config.AliveTTL = table.AliveTTL
	}
	if config.CallTimeout == 0 {
		config.CallTimeout = table.CallTimeout
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	b := &Backend{config: config, store: store, aliveGone: make(chan struct{}, 1), seen: map[string]Revision{}}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.health.since = time.Now()
	return b
}

// Put implements table.Backend.
func (b *Backend) Put(ctx context.Context, row table.Row) error {
	v, err := b.encode(row)
	if err != nil {
		return err
	}
	return b.call(ctx, func(ctx context.Context) error { return b.store.Put(ctx, row.Key, v, Whatever, nil) })
}

// Claim implements table.Backend.
func (b *Backend) Claim(ctx context.Context, row table.Row) error {
	v, err := b.encode(row)
	if err != nil {
		return err
	}
	return b.replace(ctx, row.Key, v, nil, func(have table.Row, unreadable error) (bool, error) {
		switch {
		case unreadable != nil:
			return false, &RefusedError{unreadable}
		case have.Owner != row.Owner:
			return false, &table.TakenError{Row: have}
		}
		return true, nil
	})
}

// Replace implements table.Backend.
func (b *Backend) Replace(ctx context.Context, row, old table.Row) error {
	v, err := b.encode(row)
	if err != nil {
		return err
	}
	return b.retry(ctx, func(ctx context.Context) error {
		p, err := b.store.Get(ctx, row.Key)
		if errors.Is(err, ErrNotFound) {
			return &table.ChangedError{Row: table.Row{Key: row.Key, Deleted: true}}
		}
		if err != nil {
			return err
		}
		have, unreadable := decodeRow(p)
		switch {
		case unreadable != nil: // it is written over
		case have.Same(row):
			return nil
		case !have.Same(old):
			return &table.ChangedError{Row: have}
		}
		return b.store.Put(ctx, row.Key, v, p.Revision, nil)
	})
}

// replace writes a key as it was read, or that was not there. may says whether the row that is there may be replaced;
// unreadable is why it makes no sense. Where it may not, nothing is written, and the error is may's.
func (b *Backend) replace(
	ctx context.Context, key string, value []byte, lease Lease,
	may func(have table.Row, unreadable error) (bool, error),
) error {
	return b.retry(ctx, func(ctx context.Context) error {
		is := Absent
		p, err := b.store.Get(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		default:
			if yes, err := may(decodeRow(p)); !yes {
				return err
			}
			is = p.Revision
		}
		return b.store.Put(ctx, key, value, is, lease)
	})
}

// Delete implements table.Backend.
func (b *Backend) Delete(ctx context.Context, row table.Row) error {
	return b.retry(ctx, func(ctx context.Context) error {
		p, err := b.store.Get(ctx, row.Key)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		have, err := decodeRow(p)
		if err != nil || have.Owner != row.Owner || have.Incarnation != row.Incarnation || have.Version != row.Version {
			return nil // it is not that row any more
		}
		return b.store.Delete(ctx, row.Key, p.Revision)
	})
}

// Close implements table.Backend.
func (b *Backend) Close() error {
	b.stop()
	b.watching.Lock() // Watch has ended, and with it the lease
	defer b.watching.Unlock()
	return b.store.Close()
}

func (b *Backend) encode(row table.Row) ([]byte, error) {
	v, err := encodeRow(row)
	if err != nil {
		return nil, &table.RefusedError{URL: b.config.URL, Err: err}
	}
	return v, nil
}

// retry is call for what reads a key and then writes it.
func (b *Backend) retry(ctx context.Context, f func(context.Context) error) error {
	return b.call(ctx, func(ctx context.Context) error {
		var err error
		for range maxConflicts {
			if err = f(ctx); !errors.Is(err, ErrConflict) {
				return err
			}
		}
		return err
	})
}

// call bounds a call, and says how the store is by how it ended.
func (b *Backend) call(ctx context.Context, f func(context.Context) error) error {
	if b.ctx.Err() != nil {
		return &table.UnavailableError{URL: b.config.URL, Err: table.ErrClosed}
	}
	limited, cancel := context.WithTimeoutCause(
		ctx,
		b.config.CallTimeout,
		fmt.Errorf("no answer within %v", b.config.CallTimeout),
	)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	err := f(limited)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // the caller gave up, which says nothing about the store
	}
	if err != nil && b.ctx.Err() != nil {
		return &table.UnavailableError{URL: b.config.URL, Err: table.ErrClosed}
	}
	// What a library makes of a context that ended says less than why it did.
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		err = context.Cause(limited)
	}
	return b.outcome(err)
}

// outcome notes how the store is, and returns an error in table's terms.
func (b *Backend) outcome(err error) error {
	var taken *table.TakenError
	var changed *table.ChangedError
	var refused *RefusedError
	var said *table.RefusedError
	var away *table.UnavailableError
	switch {
	case err == nil, errors.As(err, &taken), errors.As(err, &changed):
		b.health.reached()
		return err
	case errors.As(err, &said), errors.As(err, &away): // in table's terms already
	case errors.As(err, &refused):
		err = &table.RefusedError{URL: b.config.URL, Err: refused.Err}
	default:
		err = &table.UnavailableError{URL: b.config.URL, Err: err}
	}
	b.health.failed(err)
	return err
}
