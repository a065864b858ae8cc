package etcd

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/usernet/usernet/overlay/kv"
)

// errRewound ends a watch whose revisions no longer mean anything.
var errRewound = errors.New("the store is older than it was: a backup was restored")

// errReconnects ends a watch that the library would resume by itself. Behind another connection may be a server with an
// older state, put back from a backup: with the same id of its cluster, and once it has seen as many changes again, it
// goes on from the revision that it is asked for, and tells nothing of what it has lost.
var errReconnects = errors.New("the connection was lost")

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx) // ends the library's watch
		var waiting sync.WaitGroup
		defer func() { cancel(); waiting.Wait() }()
		s.mu.Lock()
		rewound := s.rewound
		s.mu.Unlock()
		list, err := s.list(ctx)
		if err != nil {
			yield(kv.Event{}, err)
			return
		}
		if !yield(list, nil) {
			return
		}
		client, err := s.connect(ctx)
		if err != nil {
			yield(kv.Event{}, err)
			return
		}
		reconnects := make(chan struct{})
		waiting.Go(func() {
			if client.ActiveConnection().WaitForStateChange(ctx, connectivity.Ready) {
				close(reconnects)
			}
		})
		// RequireLeader: a member that lost the others says so, instead of telling nothing.
		changes := client.Watch(
			clientv3.WithRequireLeader(ctx),
			s.prefix,
			clientv3.WithPrefix(),
			clientv3.WithRev(int64(list.State.Revision)+1),
		)
		for {
			select {
			case <-rewound:
				yield(kv.Event{}, errRewound)
				return
			case <-reconnects:
				yield(kv.Event{}, errReconnects)
				return
			case r, ok := <-changes:
				if !ok || r.Err() != nil {
					if ctx.Err() == nil {
						yield(kv.Event{}, s.watchError(r))
					}
					return
				}
				if !s.pass(r, list.State.ID, yield) {
					return
				}
			}
		}
	}
}

// watchError says why a watch ended.
func (s *Store) watchError(r clientv3.WatchResponse) error {
	switch {
	case r.CompactRevision != 0:
		return errors.New("the history that was not read yet is compacted")
	case r.Err() != nil:
		return s.fail(r.Err())
	}
	return errors.New("the watch ended")
}

// pass yields what a response tells.
func (s *Store) pass(r clientv3.WatchResponse, id string, yield func(kv.Event, error) bool) bool {
	for _, e := range r.Events {
		event := kv.Event{
			Kind:  kv.EventPut,
			State: kv.State{ID: id, Revision: uint64(r.Header.Revision)},
			Pair: kv.Pair{
				Key: strings.TrimPrefix(
					string(e.Kv.Key),
					s.prefix,
				), Value: e.Kv.Value, Revision: kv.Revision(e.Kv.ModRevision),
			},
		}
		if e.Type == clientv3.EventTypeDelete {
			event.Kind, event.Pair = kv.EventDelete, kv.Pair{Key: event.Pair.Key}
		}
		if !yield(event, nil) {
			return false
		}
	}
	return true
}

// list reads all keys as they were at one revision.
func (s *Store) list(ctx context.Context) (kv.Event, error) {
	list := kv.Event{Kind: kv.EventList}
	end := clientv3.GetPrefixRangeEnd(s.prefix)
	next := s.prefix
	for {
		client, before, err := s.call(ctx)
		if err != nil {
			return kv.Event{}, err
		}
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
		if next != s.prefix {
			opts = append(opts, clientv3.WithRev(int64(list.State.Revision)))
		}
		r, err := client.Get(ctx, next, opts...)
		if err != nil {
			return kv.Event{}, s.fail(err)
		}
		state := s.observe(before, r.Header)
		if next == s.prefix {
			list.State = state
		}
		for _, p := range r.Kvs {
			list.List = append(list.List, kv.Pair{
				Key: strings.TrimPrefix(string(p.Key), s.prefix), Value: p.Value, Revision: kv.Revision(p.ModRevision),
			})
		}
		if !r.More || len(r.Kvs) == 0 {
			return list, nil
		}
		next = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}
