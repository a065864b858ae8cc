package table

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// Config says what a table is of. Store and Backend have to be given.
type Config struct {
	Host        overlay.HostID
	Incarnation uint64 // of this life: higher than that of each earlier one
	// Store keeps the replica; its owner closes it after the table.
	Store network.Store
	// Backend is the table's from Open on.
	Backend Backend
	Logger  *slog.Logger
	// Resurrect says whether a network that the backend has lost is still needed here, although this host did not make
	// it: it has endpoints on it. It is called with the table's lock held, and must not call the table. Nil: none is.
	Resurrect func(network string) bool
	// Clock is time.Now; tests have another.
	Clock func() time.Time
}

// Table is a replica of a cluster's rows, kept equal to them. Make it with Open. Its methods may be called at the same
// time; none but Claim, Delete and Flush waits for the backend.
type Table struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ended  sync.WaitGroup // the goroutines: watch, push, expire

	pushing chan struct{} // has room for one: something is to be pushed
	changed chan struct{} // has room for one: pending has something

	mu struct {
		sync.Mutex
		closed bool
		rows   map[string]*entry
		byNet  map[string]map[*entry]struct{} // endpoints' rows, by network
		alive  map[overlay.HostID]uint64      // hosts that the backend hears of, with their incarnations
		down   map[overlay.HostID]time.Time   // since when it does not hear of the others
		dirty  map[string]bool                // own keys that the backend is to have
		edits  map[string]edit                // of networks' records
		gone   map[string]Row                 // rows that are to be deleted in the backend
		claims map[string]*claim              // own claims that the backend has not answered yet
		unsent map[string]bool                // keys whose replica on disk is older
		heard  map[string]hearsay             // rows of others that their owners have told, and the backend has not
		// listing are the keys that came since the last reset; nil while no list comes.
		listing  map[string]bool
		rewound  bool // by the list that comes
		synced   bool // a list has come since the connection was made
		everSync time.Time
		echoed   bool // this life's host row came back from the backend
		pending  Changes
		refused  map[string]error     // rows that make no sense, by key
		lost     map[string]Conflict  // own claims that an older one of another host has won
		err      error                // why the backend is not reached; nil: it is
		orphans  map[string]time.Time // claims without a network, since when
		warned   time.Time            // when err was logged last
	}
}

// bucketRows has the replica: key to storedRow.
const bucketRows network.Bucket = "rows"

// missingGrace is how long rows of others stay that a restored backend lacks: their owners put them again.
const missingGrace = time.Minute

// Open reads the replica. The backend is followed from Start on.
func Open(cfg Config) (*Table, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	t := &Table{cfg: cfg, log: cfg.Logger, pushing: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	t.mu.rows, t.mu.byNet = map[string]*entry{}, map[string]map[*entry]struct{}{}
	t.mu.alive, t.mu.down = map[overlay.HostID]uint64{}, map[overlay.HostID]time.Time{}
	t.mu.dirty, t.mu.gone, t.mu.unsent = map[string]bool{}, map[string]Row{}, map[string]bool{}
	t.mu.edits = map[string]edit{}
	t.mu.heard = map[string]hearsay{}
	t.mu.refused, t.mu.lost, t.mu.claims = map[string]error{}, map[string]Conflict{}, map[string]*claim{}
	t.mu.pending = newChanges()
	if err := t.load(); err != nil {
		return nil, err
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Start begins to follow the backend, once.
func (t *Table) Start() {
	t.ended.Go(func() { t.follow(t.ctx) })
	t.ended.Go(func() { t.push(t.ctx) })
	t.ended.Go(func() { t.expire(t.ctx) })
}

// Close ends the table and its backend, and waits for them. The replica stays.
func (t *Table) Close() error {
	t.mu.Lock()
	again := t.mu.closed
	t.mu.closed = true
	t.mu.Unlock()
	if again {
		return nil
	}
	t.cancel()
	err := t.cfg.Backend.Close()
	t.ended.Wait()
	return errors.Join(err, t.save())
}

// wake has the pusher look.
func (t *Table) wake() {
	select {
	case t.pushing <- struct{}{}:
	default:
	}
}

// Refused are the rows that make no sense, by key, with the reasons.
func (t *Table) Refused() map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.mu.refused)
}

// Lost are keys of this host that an older claim of another has won, with the other's row, as long as what they were
// claimed for is there.
func (t *Table) Lost() map[string]Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	lost := map[string]Row{}
	for key, c := range t.mu.lost {
		k, err := overlay.ParseKey(key)
		if err != nil {
			continue
		}
		record, err := decode(k, c.Own.Value)
		if name, is := record.(overlay.Name); err == nil && is && t.mu.rows[overlay.NetworkKey(name.Network)] == nil {
			delete(t.mu.lost, key)
			continue
		}
		lost[key] = c.Other
	}
	return lost
}
