// Package tabletest is a backend in memory, for tests of what uses one: several hosts in one process, and the faults
// that a store has.
//
//	hub := tabletest.NewHub()
//	a, b := hub.Join(host1, 1), hub.Join(host2, 1)
//	hub.Away(host1, errors.New("connection refused")) // host 1 does not reach it
//	hub.Back(host1)
package tabletest

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

const url = "memory://test"

// Hub is what all hosts of a test share.
type Hub struct {
	mu    sync.Mutex // guards all below, and the backends' fields
	rows  map[string]table.Row
	hosts map[overlay.HostID][]*backend // more than one: a copied state directory
}

// NewHub makes an empty one.
func NewHub() *Hub {
	return &Hub{rows: map[string]table.Row{}, hosts: map[overlay.HostID][]*backend{}}
}

// backend is one host's.
type backend struct {
	hub         *Hub
	id          overlay.HostID
	incarnation uint64

	away    error // why the hub cannot be reached; nil: it can
	since   time.Time
	lastErr error
	closed  bool
	watch   chan struct{} // has room for one: something is in pending, or the state changed
	relist  bool
	rewound bool
	pending []table.Event
}

// Join connects a host.
func (h *Hub) Join(id overlay.HostID, incarnation uint64) table.Backend {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &backend{
		hub:         h,
		id:          id,
		incarnation: incarnation,
		since:       time.Now(),
		watch:       make(chan struct{}, 1),
		relist:      true,
	}
	h.hosts[id] = append(h.hosts[id], b)
	return b
}

// Away makes the hub unreachable for a host, which others do not hear of then: at once, without AliveTTL.
func (h *Hub) Away(id overlay.HostID, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.hosts[id] {
		b.away, b.since, b.lastErr, b.pending = why, time.Now(), why, nil
		b.notify()
	}
	h.remove(h.rows[overlay.AliveKey(id)])
}

// Back ends Away. The host lists again.
func (h *Hub) Back(id overlay.HostID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.hosts[id] {
		b.away, b.since, b.relist = nil, time.Now(), true
		h.set(b.alive())
		b.notify()
	}
}

// Rows is a copy of all rows, as a backup.
func (h *Hub) Rows() map[string]table.Row {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.rows)
}

// Restore replaces all rows, as a backup that is restored: all hosts list again and are told that the state went back.
func (h *Hub) Restore(rows map[string]table.Row) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rows = maps.Clone(rows)
	for _, list := range h.hosts {
		for _, b := range list {
			b.relist, b.rewound, b.pending = true, true, nil
			b.notify()
		}
	}
}

// Relist has all hosts list again, as after a compacted history.
func (h *Hub) Relist() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, list := range h.hosts {
		for _, b := range list {
			b.relist, b.pending = true, nil
			b.notify()
		}
	}
}

// set stores a row and tells all. The caller holds mu.
func (h *Hub) set(row table.Row) {
	row.Value = slices.Clone(row.Value)
	h.rows[row.Key] = row
	h.tell(row)
}

// remove deletes a row and tells all. The caller holds mu.
func (h *Hub) remove(row table.Row) {
	if _, is := h.rows[row.Key]; !is {
		return
	}
	delete(h.rows, row.Key)
	row.Deleted, row.Value = true, nil
	h.tell(row)
}

func (h *Hub) tell(row table.Row) {
	for _, list := range h.hosts {
		for _, b := range list {
			if b.away == nil && !b.relist && !b.closed {
				b.pending = append(b.pending, table.Event{Kind: table.EventRow, Row: row})
				b.notify()
			}
		}
	}
}

func (b *backend) notify() {
	select {
	case b.watch <- struct{}{}:
	default:
	}
}

func (b *backend) alive() table.Row {
	return table.Row{Key: overlay.AliveKey(b.id), Owner: b.id, Incarnation: b.incarnation, Version: b.incarnation}
}

// reached says why a call cannot be made. The caller holds mu.
func (b *backend) reached() error {
	switch {
	case b.closed:
		return &table.UnavailableError{URL: url, Err: table.ErrClosed}
	case b.away != nil:
		return &table.UnavailableError{URL: url, Err: b.away}
	}
	return nil
}

// next is what the watch yields now: events, or an error. The caller does not hold mu.
func (b *backend) next() (events []table.Event, err error, ended bool) {
	h := b.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.closed {
		return nil, nil, true
	}
	if err := b.reached(); err != nil {
		return nil, err, false
	}
	if !b.relist {
		events, b.pending = b.pending, nil
		return events, nil, false
	}
	h.set(b.alive())
	events = append(events, table.Event{Kind: table.EventReset, Rewound: b.rewound})
	byKey := func(a, b table.Row) int { return cmp.Compare(a.Key, b.Key) }
	for _, row := range slices.SortedFunc(maps.Values(h.rows), byKey) {
		events = append(events, table.Event{Kind: table.EventRow, Row: row})
	}
	b.relist, b.rewound, b.pending = false, false, nil
	return append(events, table.Event{Kind: table.EventSynced}), nil, false
}

// Watch implements table.Backend.
func (b *backend) Watch(ctx context.Context) iter.Seq2[table.Event, error] {
	return func(yield func(table.Event, error) bool) {
		for {
			events, err, ended := b.next()
			if ended || err != nil && !yield(table.Event{}, err) {
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-b.watch:
			}
		}
	}
}

// Put implements table.Backend.
func (b *backend) Put(_ context.Context, row table.Row) error {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	if err := b.reached(); err != nil {
		return err
	}
	b.hub.set(row)
	return nil
}

// Replace implements table.Backend.
func (b *backend) Replace(_ context.Context, row, old table.Row) error {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	if err := b.reached(); err != nil {
		return err
	}
	switch have, is := b.hub.rows[row.Key]; {
	case !is:
		return &table.ChangedError{Row: table.Row{Key: row.Key, Deleted: true}}
	case have.Same(row):
		return nil
	case !have.Same(old):
		return &table.ChangedError{Row: have}
	}
	b.hub.set(row)
	return nil
}

// Claim implements table.Backend.
func (b *backend) Claim(_ context.Context, row table.Row) error {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	if err := b.reached(); err != nil {
		return err
	}
	if have, is := b.hub.rows[row.Key]; is && have.Owner != row.Owner {
		return &table.TakenError{Row: have}
	}
	b.hub.set(row)
	return nil
}

// Delete implements table.Backend.
func (b *backend) Delete(_ context.Context, row table.Row) error {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	if err := b.reached(); err != nil {
		return err
	}
	have := b.hub.rows[row.Key]
	if have.Owner == row.Owner && have.Incarnation == row.Incarnation && have.Version == row.Version {
		b.hub.remove(have)
	}
	return nil
}

// Health implements table.Backend.
func (b *backend) Health() table.Health {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	return table.Health{URL: url, Connected: b.away == nil && !b.closed, Since: b.since, Err: b.lastErr}
}

// Close implements table.Backend.
func (b *backend) Close() error {
	h := b.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if row := h.rows[overlay.AliveKey(b.id)]; row.Incarnation == b.incarnation {
		h.remove(row)
	}
	h.hosts[b.id] = slices.DeleteFunc(h.hosts[b.id], func(x *backend) bool { return x == b })
	b.notify()
	return nil
}
