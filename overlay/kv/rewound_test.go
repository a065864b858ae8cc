package kv

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// lists is a store that has one list after another, each until the next watch.
type lists struct {
	next chan Event
}

var errNone = errors.New("this store has no leases")

func (l *lists) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		select {
		case <-ctx.Done():
		case e := <-l.next:
			yield(e, nil)
		}
	}
}
func (*lists) Get(context.Context, string) (Pair, error)                  { return Pair{}, ErrNotFound }
func (*lists) Put(context.Context, string, []byte, Revision, Lease) error { return nil }
func (*lists) Delete(context.Context, string, Revision) error             { return nil }
func (*lists) Lease(context.Context, time.Duration) (Lease, error)        { return nil, errNone }
func (*lists) Close() error                                               { return nil }

var _ Store = (*lists)(nil)

// TestARestoredBackupIsNoticed: with etcd's revisions, the later of two hosts that list a store which was put back to
// revision 100.
func TestARestoredBackupIsNoticed(t *testing.T) {
	owner := overlay.NewHostID()
	value := func() []byte {
		b, err := encodeRow(table.Row{Owner: owner, Incarnation: 1, Version: 1, Value: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}()
	list := func(id string, revision uint64, rows map[string]Revision) Event {
		e := Event{Kind: EventList, State: State{ID: id, Revision: revision}}
		for key, r := range rows {
			e.List = append(e.List, Pair{Key: key, Value: value, Revision: r})
		}
		return e
	}
	before := list("s", 110, map[string]Revision{"a": 90, "mine": 105, "theirs": 108})
	for _, c := range []struct {
		name string
		then Event
		want bool
	}{
		{"nothing has changed", before, false},
		{"others have written", list("s", 130, map[string]Revision{"a": 90, "mine": 105, "theirs": 130}), false},
		{"others have deleted", list("s", 111, map[string]Revision{"a": 90, "mine": 105}), false},
		{"the state is older", list("s", 100, map[string]Revision{"a": 90}), true},
		{"it is another store's", list("other", 200, map[string]Revision{"a": 90}), true},
		{"another host has put its row again, and leases were made",
			list("s", 120, map[string]Revision{"a": 90, "theirs": 101}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &lists{next: make(chan Event, 2)}
			b := New(s, Config{Host: owner, Incarnation: 1})
			defer b.Close()
			s.next <- before
			s.next <- c.then
			n := 0
			for e := range b.Watch(t.Context()) {
				if e.Kind != table.EventReset {
					continue
				}
				if n++; n == 2 {
					if e.Rewound != c.want {
						t.Errorf("rewound: %v", e.Rewound)
					}
					break
				}
			}
		})
	}
}
