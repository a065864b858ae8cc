package table

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/usernet/usernet/overlay"
)

// Times that all backends and tables agree on.
const (
	// CallTimeout bounds each call of a backend, whatever its context allows.
	CallTimeout = 3 * time.Second
	// AliveTTL is how long a host that is not heard of any more counts as alive. A backend renews at a third of it.
	AliveTTL = 15 * time.Second
	// RecordTTL is how long the rows of a host stay that is not heard of any more.
	RecordTTL = 10 * time.Minute
)

// Row is one record with who wrote it, in which life, and how often it changed.
type Row struct {
	Key string
	// Value is a record of package overlay, overlay.MaxRecord bytes at most; none in alive/ rows. Not to be modified.
	Value       []byte
	Owner       overlay.HostID
	Incarnation uint64 // of the owner's life that wrote it
	// Version orders the changes of one key: a row replaces the one with a lower version. The next writer of a key
	// gives the version it knows plus one.
	Version uint64
	// Claimed is when the owner first claimed the key, in nanoseconds since 1970 by its clock; 0: it was put, not
	// claimed. It orders claims that were made without knowledge of each other.
	Claimed int64
	// Deleted marks a row that is gone, for as long as the backend remembers it. All but Key may be missing then.
	Deleted bool
}

// Same says whether two rows of one key are the same writing of it.
func (r Row) Same(o Row) bool {
	return r.Owner == o.Owner && r.Incarnation == o.Incarnation && r.Version == o.Version
}

// EventKind says what an Event is.
type EventKind uint8

// What Watch yields.
const (
	// EventReset begins a list: rows that do not come between it and EventSynced are not in the backend (any more).
	EventReset EventKind = iota + 1
	// EventRow is a row as it is now: one of the list, or a change. Of a deleted one, some backends know the Key alone.
	EventRow
	// EventSynced ends a list.
	EventSynced
)

// Event is one thing that a backend tells.
type Event struct {
	Kind EventKind
	Row  Row // of EventRow
	// Rewound says with EventReset that the backend's state is older than what it has shown before, such as a backup
	// that was restored. What is missing was not deleted then.
	Rewound bool
}

// Backend spreads rows among the hosts of a cluster. Its methods may be called at the same time. Each ends after
// CallTimeout at most. An error is one of *UnavailableError, *TakenError, *ChangedError, *RefusedError, or ctx's.
//
// alive/<host> rows are the backend's own: it makes one for its host while Watch runs, which goes when the host has not
// been heard of for AliveTTL, and yields those of all hosts. Their Value is empty.
type Backend interface {
	// Watch yields EventReset, all rows, EventSynced and then each change, for ever. It reconnects by itself, and where
	// it has to list again (a new session, a compacted history, a restored backup) begins with EventReset again. An
	// error is a state, not an end: the backend cannot be reached, and is tried again. It ends with ctx, or when the
	// caller stops. At most one Watch runs at a time.
	Watch(ctx context.Context) iter.Seq2[Event, error]

	// Put writes a row of this host, whatever was there.
	Put(ctx context.Context, row Row) error

	// Claim writes a row that only one host may have. Where another host has it, that is a *TakenError with its row;
	// where this host has it already, the row is replaced. Without a store it waits for objections, for a time of its
	// own that ctx's deadline does not end.
	Claim(ctx context.Context, row Row) error

	// Replace writes a row of this host in the place of old, where old is what is there: else it is a *ChangedError
	// with what is. A row that is there already is no error.
	Replace(ctx context.Context, row, old Row) error

	// Delete removes a row unless it has changed: unless owner, incarnation or version are others than those of row. A
	// row that is not there, or has changed, is no error.
	Delete(ctx context.Context, row Row) error

	// Health says how the backend is. It does not block.
	Health() Health

	// Close ends the backend, and Watch. The host's alive/ row goes at once.
	Close() error
}

// Health is how a backend is.
type Health struct {
	// URL names it, without passwords: "etcd://192.0.2.4:2379/usernet", "gossip://192.0.2.1:7946".
	URL string
	// Connected says whether it was reached last time, and Since when that became so.
	Connected bool
	Since     time.Time
	// Err is why it was not reached last; nil while it never failed.
	Err error
	// Notes are for people: members that do not answer, a key that does not fit.
	Notes []string
}

// UnavailableError says that a backend cannot be reached, with the reason.
type UnavailableError struct {
	URL string // without passwords
	Err error
}

// Error names the backend and the reason.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("cluster store %s cannot be reached: %v", e.URL, e.Err)
}

// Unwrap returns the reason.
func (e *UnavailableError) Unwrap() error { return e.Err }

// TakenError says that another host has claimed a key.
type TakenError struct {
	Row Row // of the other
}

// Error names the key and the host.
func (e *TakenError) Error() string {
	return fmt.Sprintf("%s belongs to host %s", e.Row.Key, e.Row.Owner.Short())
}

// ChangedError says that a row is not the one that was to be replaced.
type ChangedError struct {
	Row Row // as it is; Deleted: there is none
}

// Error names the key and who has changed it.
func (e *ChangedError) Error() string {
	if e.Row.Deleted {
		return e.Row.Key + " was deleted"
	}
	return fmt.Sprintf("%s was changed by host %s", e.Row.Key, e.Row.Owner.Short())
}

// RefusedError says that a backend was reached and will not do it: credentials, permissions, a row that it cannot hold.
type RefusedError struct {
	URL string // without passwords
	Err error
}

// Error names the backend and the reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("cluster store %s: %v", e.URL, e.Err) }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// ErrClosed is what calls after Close return, in an *UnavailableError.
var ErrClosed = errors.New("it is closed")

// Older says whether claim a goes before claim b of the same key: the one that was claimed first, then that of the
// lower host id. Both hosts' clocks are believed; a wrong one decides who keeps the key, and nothing else.
func Older(a, b Row) bool {
	if a.Claimed != b.Claimed {
		return a.Claimed < b.Claimed
	}
	return a.Owner < b.Owner
}
