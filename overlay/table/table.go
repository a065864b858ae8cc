package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
		byNet  map[string]map[string]*entry // endpoints' rows, by network and key
		alive  map[overlay.HostID]uint64    // hosts that the backend hears of, with their incarnations
		down   map[overlay.HostID]time.Time // since when it does not hear of the others
		dirty  map[string]bool              // own keys that the backend is to have
		gone   map[string]Row               // rows that are to be deleted in the backend
		claims map[string]*claim            // own claims that the backend has not answered yet
		unsent map[string]bool              // keys whose replica on disk is older
		// listing are the keys that came since the last reset; nil while no list comes.
		listing  map[string]bool
		rewound  bool // by the list that comes
		synced   bool // a list has come since the connection was made
		everSync time.Time
		echoed   bool // this life's host row came back from the backend
		pending  Changes
		refused  map[string]error // rows that make no sense, by key
		lost     map[string]Row   // own claims that an older one of another host has won, with the other's row
		err      error            // why the backend is not reached; nil: it is
	}
}

// entry is a row in memory. What is in it is never changed, but replaced.
type entry struct {
	Row
	key    overlay.ParsedKey
	record any // overlay.Host, Network, Endpoint, Block or Name
	// missing is since when a backend that was put back lacks the row; zero: it has it.
	missing time.Time
}

// Changes are what became different since they were asked for last.
type Changes struct {
	Networks  map[string]bool // ids of networks that came, changed or went
	Endpoints map[string]bool // ids of networks whose endpoints did
	Hosts     bool            // hosts came, went, changed, are down or up
	Lost      []Conflict      // claims of this host that others had before
	Duplicate *Row            // the host row of another daemon with this host's id that was there before
	Usurped   *Row            // the same of a daemon that came later; it will take another id
	Synced    bool            // a whole list came
	Health    bool            // the backend was lost, or is back
}

// Conflict is a key that two hosts have claimed without knowledge of each other.
type Conflict struct {
	Own, Other Row
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
	t.mu.rows, t.mu.byNet = map[string]*entry{}, map[string]map[string]*entry{}
	t.mu.alive, t.mu.down = map[overlay.HostID]uint64{}, map[overlay.HostID]time.Time{}
	t.mu.dirty, t.mu.gone, t.mu.unsent = map[string]bool{}, map[string]Row{}, map[string]bool{}
	t.mu.refused, t.mu.lost, t.mu.claims = map[string]error{}, map[string]Row{}, map[string]*claim{}
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

// Put has all hosts know a record of this host's own, now or when the backend is reached.
func (t *Table) Put(key string, value []byte) error { return t.put(key, value, 0) }

// PutClaimed is Put for a key that this host may have without asking, such as an address of a block of its own. It goes
// before later claims of other hosts.
func (t *Table) PutClaimed(key string, value []byte) error {
	return t.put(key, value, t.cfg.Clock().UnixNano())
}

func (t *Table) put(key string, value []byte, claimed int64) error {
	if err := overlayRow(key, value); err != nil {
		return err
	}
	t.mu.Lock()
	if t.mu.closed {
		t.mu.Unlock()
		return ErrClosed
	}
	row := Row{
		Key:         key,
		Value:       slices.Clone(value),
		Owner:       t.cfg.Host,
		Incarnation: t.cfg.Incarnation,
		Version:     1,
		Claimed:     claimed,
	}
	if have := t.mu.rows[key]; have != nil {
		if have.Owner == row.Owner && have.Incarnation == row.Incarnation && string(have.Value) == string(value) {
			t.mu.Unlock()
			return nil
		}
		if have.Owner == row.Owner && have.Claimed != 0 {
			row.Claimed = have.Claimed
		}
		row.Version = have.Version + 1
	}
	if g, is := t.mu.gone[key]; is {
		row.Version = max(row.Version, g.Version+1)
		delete(t.mu.gone, key)
	}
	t.store(row)
	t.mu.dirty[key] = true
	t.mu.Unlock()
	t.wake()
	return t.save()
}

// overlayRow refuses what other hosts would not take.
func overlayRow(key string, value []byte) error {
	k, err := overlay.ParseKey(key)
	if err == nil {
		_, err = decode(k, value)
	}
	return err
}

// Drop takes a row of this host's away: here at once, and in the backend when it is reached.
func (t *Table) Drop(key string) {
	t.mu.Lock()
	have := t.mu.rows[key]
	if have == nil || have.Owner != t.cfg.Host {
		t.mu.Unlock()
		return
	}
	t.remove(key)
	delete(t.mu.dirty, key)
	t.mu.gone[key] = have.Row
	t.mu.Unlock()
	t.wake()
	if err := t.save(); err != nil {
		t.log.Warn("the replica of the cluster's records was not stored", "error", err)
	}
}

// Delete removes a row, whoever wrote it, in the backend first: so for networks, which any host may remove.
func (t *Table) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	t.mu.Lock()
	have := t.mu.rows[key]
	t.mu.Unlock()
	if have == nil {
		return nil
	}
	if err := t.cfg.Backend.Delete(ctx, have.Row); err != nil {
		return t.explain(err)
	}
	t.mu.Lock()
	if t.mu.rows[key] == have {
		t.remove(key)
		delete(t.mu.dirty, key)
	}
	t.mu.Unlock()
	return t.save()
}

// explain makes an error of the time that a call was given one that says what was not reached.
func (t *Table) explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		var away *UnavailableError
		if !errors.As(err, &away) {
			h := t.cfg.Backend.Health()
			reason := error(fmt.Errorf("no answer within %v", CallTimeout))
			if h.Err != nil && !h.Connected {
				reason = h.Err
			}
			return &UnavailableError{URL: h.URL, Err: reason}
		}
	}
	return err
}

// wake has the pusher look.
func (t *Table) wake() {
	select {
	case t.pushing <- struct{}{}:
	default:
	}
}

func newChanges() Changes {
	return Changes{Networks: map[string]bool{}, Endpoints: map[string]bool{}}
}

// Changed has something to receive when TakeChanges has something to return.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// TakeChanges returns what changed since it was called last.
func (t *Table) TakeChanges() Changes {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.mu.pending
	t.mu.pending = newChanges()
	return c
}

// tell has Changed say something. The caller holds mu.
func (t *Table) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// store puts a row into memory, which has to make sense, and notes what that changes. The caller holds mu.
func (t *Table) store(row Row) {
	k, err := overlay.ParseKey(row.Key)
	if err != nil {
		return
	}
	record, err := decode(k, row.Value)
	if err != nil {
		return
	}
	e := &entry{Row: row, key: k, record: record}
	t.mu.rows[row.Key] = e
	t.mu.unsent[row.Key] = true
	if k.Kind == overlay.KindEndpoint {
		if t.mu.byNet[k.Network] == nil {
			t.mu.byNet[k.Network] = map[string]*entry{}
		}
		t.mu.byNet[k.Network][row.Key] = e
	}
	t.note(k)
}

// remove takes a row out of memory. The caller holds mu.
func (t *Table) remove(key string) {
	e := t.mu.rows[key]
	if e == nil {
		return
	}
	delete(t.mu.rows, key)
	t.mu.unsent[key] = true
	if e.key.Kind == overlay.KindEndpoint {
		delete(t.mu.byNet[e.key.Network], key)
		if len(t.mu.byNet[e.key.Network]) == 0 {
			delete(t.mu.byNet, e.key.Network)
		}
	}
	t.note(e.key)
}

// note remembers that a key changed. The caller holds mu.
func (t *Table) note(k overlay.ParsedKey) {
	switch k.Kind {
	case overlay.KindNetwork:
		t.mu.pending.Networks[k.Network] = true
	case overlay.KindEndpoint:
		t.mu.pending.Endpoints[k.Network] = true
	case overlay.KindHost, overlay.KindAlive:
		t.mu.pending.Hosts = true
	default:
		return
	}
	t.tell()
}

// decode reads the record of a key's kind, and holds it to its key.
func decode(k overlay.ParsedKey, value []byte) (any, error) {
	bad := errors.New("the record belongs to another key")
	switch k.Kind {
	case overlay.KindHost:
		r, err := overlay.Decode[overlay.Host](value)
		if err == nil && r.ID != k.Host {
			err = bad
		}
		return r, err
	case overlay.KindNetwork:
		r, err := overlay.Decode[overlay.Network](value)
		if err == nil && r.ID != k.Network {
			err = bad
		}
		return r, err
	case overlay.KindName, overlay.KindPool, overlay.KindVNI:
		return overlay.Decode[overlay.Name](value)
	case overlay.KindBlock:
		r, err := overlay.Decode[overlay.Block](value)
		if err == nil && (r.Network != k.Network || r.Prefix != k.Prefix) {
			err = bad
		}
		return r, err
	case overlay.KindEndpoint:
		r, err := overlay.Decode[overlay.Endpoint](value)
		if err == nil && (r.Network != k.Network || !slices.Contains(r.Addrs, k.Addr)) {
			err = bad
		}
		return r, err
	}
	return nil, fmt.Errorf("a record of kind %s", k.Kind)
}

// Refused are the rows that make no sense, by key, with the reasons.
func (t *Table) Refused() map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.mu.refused)
}

// Lost are keys of this host that an older claim of another has won, with the other's row.
func (t *Table) Lost() map[string]Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.mu.lost)
}
