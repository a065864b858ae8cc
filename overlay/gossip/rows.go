package gossip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// maxBroadcast is the size of a message that fits into a datagram with memberlist's own bytes around it (UDPBufferSize
// is 1400).
const maxBroadcast = 1300

// broadcast is a register on its way to all hosts. A later one of it goes in its place.
type broadcast struct {
	id      string
	message []byte
}

// Invalidates implements memberlist.Broadcast.
func (c *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, is := other.(*broadcast)
	return is && o.id == c.id
}

// Name implements memberlist.NamedBroadcast, which finds what it invalidates without a search.
func (c *broadcast) Name() string { return c.id }

// Message implements memberlist.Broadcast.
func (c *broadcast) Message() []byte { return c.message }

// Finished implements memberlist.Broadcast.
func (c *broadcast) Finished() {}

// maxQueue is how many rows wait to be broadcast. At three datagrams each 200 ms, as memberlist sends them, that is
// some seconds.
const maxQueue = 128

// spread broadcasts a row. One that is too long for a datagram, or meets a full queue, goes by comparison.
func (b *Backend) spread(row table.Row) {
	message := appendRow([]byte{msgRows}, row)
	if len(message) > maxBroadcast || b.queue.NumQueued() >= maxQueue {
		b.behind.Store(catchUpFor)
	} else {
		b.queue.QueueBroadcast(&broadcast{row.Key + "\x00" + string(row.Owner), message})
	}
}

// maxPending is for how many changes there is room at rest.
const maxPending = 1024

// changed has Watch yield a key's row. The caller holds mu.
func (b *Backend) changed(key string) {
	b.mu.pending[key] = true
	b.wakeWatch()
}

func (b *Backend) wakeWatch() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *Backend) malformed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.bad++
}

// rowsCame takes over what another host has sent. What was news is passed on; where another host claims a key that this
// one has the better claim to, that claim is the answer.
func (b *Backend) rowsCame(r *reader) {
	now := time.Now()
	var news []table.Row
	b.mu.Lock()
	for len(r.b) > 0 {
		row, err := r.row()
		if err != nil {
			b.mu.bad++
			break
		}
		r, is := b.mu.state.merge(row, now)
		if !is {
			continue
		}
		row = r.row() // with bytes of its own
		b.changed(row.Key)
		news = append(news, row)
		if best, is := b.mu.state.visible(row.Key); is && best.Owner == b.config.Host && row.Owner != best.Owner &&
			!row.Deleted {
			news = append(news, best)
		}
	}
	b.mu.Unlock()
	// A comparison brings many rows at once, and others have it with theirs.
	if len(news) > maxPassOn {
		b.behind.Store(catchUpFor)
		return
	}
	for _, row := range news {
		b.spread(row)
	}
}

// maxPassOn is how many rows of one message are broadcast further.
const maxPassOn = 8

// write stores a row of this host and broadcasts it. Its version is raised above what is known. The caller holds mu.
func (b *Backend) write(row table.Row) table.Row {
	if have, is := b.mu.state.get(row.Key, row.Owner); is && !later(row, have) {
		row.Version = have.Version + 1
	}
	if r, is := b.mu.state.merge(row, time.Now()); is {
		row = r.row()
	}
	b.changed(row.Key)
	b.spread(row)
	return row
}

// check refuses what no host would take.
func (b *Backend) check(ctx context.Context, row table.Row) error {
	_, err := overlay.ParseHostID(string(row.Owner))
	switch {
	case b.ctx.Err() != nil:
		return &table.UnavailableError{URL: b.url(), Err: table.ErrClosed}
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
	case row.Key == "" || len(row.Key) > overlay.MaxKey || len(row.Value) > overlay.MaxRecord:
		err = fmt.Errorf("row %.120q of %d bytes: %d are possible", row.Key, len(row.Value), overlay.MaxRecord)
	default:
		return nil
	}
	return &table.RefusedError{URL: b.url(), Err: err}
}

// Put implements table.Backend.
func (b *Backend) Put(ctx context.Context, row table.Row) error {
	if err := b.check(ctx, row); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write(row)
	return nil
}

// Replace implements table.Backend. What is there is what this host knows of.
func (b *Backend) Replace(ctx context.Context, row, old table.Row) error {
	if err := b.check(ctx, row); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch have, is := b.mu.state.visible(row.Key); {
	case !is:
		return &table.ChangedError{Row: table.Row{Key: row.Key, Deleted: true}}
	case have.Same(row):
		return nil
	case !have.Same(old):
		return &table.ChangedError{Row: have}
	}
	b.write(row)
	return nil
}

// Claim implements table.Backend.
func (b *Backend) Claim(ctx context.Context, row table.Row) error {
	if err := b.check(ctx, row); err != nil {
		return err
	}
	if row.Claimed == 0 {
		return &table.RefusedError{URL: b.url(), Err: errors.New("a claim without a time")}
	}
	b.mu.Lock()
	best, is := b.mu.state.visible(row.Key)
	if is && best.Owner != row.Owner {
		b.mu.Unlock()
		return &table.TakenError{Row: best}
	}
	row = b.write(row)
	b.mu.Unlock()
	if is {
		return nil // it had it already
	}
	return b.objections(ctx, row)
}

// objections waits for older claims, and withdraws this one if there is one or the caller gives up. The caller's time
// does not end it: nobody is waited for but the clock, so the claim is made once it has been waited for, even if that
// takes longer than it should on a busy machine.
func (b *Backend) objections(ctx context.Context, row table.Row) error {
	t, givenUp := time.NewTimer(b.config.Objections), ctx.Done()
	defer t.Stop()
	looks := time.NewTicker(b.config.Objections / 20)
	defer looks.Stop()
	for {
		b.mu.Lock()
		best, is := b.mu.state.visible(row.Key)
		if is && best.Owner != row.Owner {
			b.withdraw(row)
			b.mu.Unlock()
			return &table.TakenError{Row: best}
		}
		b.mu.Unlock()
		select {
		case <-t.C:
			return nil
		case <-looks.C:
		case <-givenUp:
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				givenUp = nil
				continue
			}
			b.mu.Lock()
			b.withdraw(row)
			b.mu.Unlock()
			return ctx.Err()
		case <-b.ctx.Done():
			return &table.UnavailableError{URL: b.url(), Err: table.ErrClosed}
		}
	}
}

// withdraw deletes a row. The caller holds mu.
func (b *Backend) withdraw(row table.Row) {
	row.Deleted, row.Value = true, nil
	row.Version++
	b.write(row)
}

// Delete implements table.Backend.
func (b *Backend) Delete(ctx context.Context, row table.Row) error {
	if err := b.check(ctx, row); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	have, is := b.mu.state.get(row.Key, row.Owner)
	if !is || have.Deleted || have.Incarnation != row.Incarnation || have.Version != row.Version {
		return nil
	}
	b.withdraw(have)
	if have.Claimed != 0 {
		return nil // an earlier claim of another host counts again
	}
	for _, owner := range b.mu.state.owners(row.Key) { // what have has replaced does not come back
		if old, _ := b.mu.state.get(row.Key, owner); !old.Deleted && old.Claimed == 0 && old.Version <= row.Version {
			b.withdraw(old)
		}
	}
	return nil
}

// Watch implements table.Backend. The list begins when another host's rows were compared with this one's, or when there
// is nobody to compare with. A list of gossip's says what some hosts know: what is missing from it was not deleted.
func (b *Backend) Watch(ctx context.Context) iter.Seq2[table.Event, error] {
	return func(yield func(table.Event, error) bool) {
		b.watching.Lock()
		defer b.watching.Unlock()
		listed := false
		for {
			events := b.events(&listed)
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-b.ctx.Done():
				return
			case <-b.wake:
			}
		}
	}
}

// events are what Watch has to yield now.
func (b *Backend) events(listed *bool) []table.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !*listed && !b.mu.compared && !b.mu.alone {
		return nil
	}
	var events []table.Event
	if *listed {
		for key := range b.mu.pending {
			events = append(events, table.Event{Kind: table.EventRow, Row: b.current(key)})
		}
	} else {
		*listed = true
		events = append(events, table.Event{Kind: table.EventReset, Rewound: true})
		for r := range b.mu.state.all() {
			// A key with registers of several hosts has one of them that it says.
			if row := b.current(r.key); !row.Deleted && row.Owner == r.owner.Value() {
				events = append(events, table.Event{Kind: table.EventRow, Row: row})
			}
		}
		for host := range b.mu.alive {
			if row, is := b.aliveRow(host); is {
				events = append(events, table.Event{Kind: table.EventRow, Row: row})
			}
		}
		events = append(events, table.Event{Kind: table.EventSynced})
	}
	if len(b.mu.pending) > maxPending {
		b.mu.pending = map[string]bool{} // a map that is cleared stays as large as it was
	}
	clear(b.mu.pending)
	return events
}

// current is a key's row as it is now; deleted, if it has none. The caller holds mu.
func (b *Backend) current(key string) table.Row {
	if strings.HasPrefix(key, string(overlay.KindAlive)) {
		if k, err := overlay.ParseKey(key); err == nil && k.Kind == overlay.KindAlive {
			row, _ := b.aliveRow(k.Host)
			return row
		}
	}
	if row, is := b.mu.state.visible(key); is {
		return row
	}
	gone := table.Row{Key: key, Deleted: true}
	for _, r := range b.mu.state.of(key, nil) {
		if gone.Owner == "" || r.version > gone.Version {
			gone = r.row()
		}
	}
	return gone
}
