package consul

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/table"
)

// waitTime is how long the server may wait for a change, to which it adds up to a sixteenth.
const waitTime = 20 * time.Second

// errRewound ends a watch whose indexes no longer mean anything.
var errRewound = errors.New("the store is older than it was: a backup was restored")

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		known, state, err := s.begin(ctx, yield)
		if known == nil {
			if err != nil {
				yield(kv.Event{}, err)
			}
			return
		}
		// The index of the first list can be that of a key deleted long ago: the second asks for what is newer than 1.
		for index := uint64(1); ctx.Err() == nil; {
			pairs, meta, err := s.list(ctx, index)
			if err == nil && meta.LastIndex < index {
				err = errRewound
			}
			if err != nil {
				if ctx.Err() == nil {
					yield(kv.Event{}, err)
				}
				return
			}
			index = max(meta.LastIndex, 1)
			state.Revision = max(state.Revision, index)
			if !s.compare(known, pairs, state, yield) {
				return
			}
		}
	}
}

// begin yields the first list. It returns what is known, or nil where the watch ends.
func (s *Store) begin(ctx context.Context, yield func(kv.Event, error) bool) (map[string]kv.Revision, kv.State, error) {
	state, err := s.now(ctx)
	if err != nil {
		return nil, state, err
	}
	pairs, _, err := s.list(ctx, 0)
	if err != nil {
		return nil, state, err
	}
	known := make(map[string]kv.Revision, len(pairs))
	event := kv.Event{Kind: kv.EventList, State: state, List: make([]kv.Pair, 0, len(pairs))}
	for _, p := range pairs {
		pair := s.pair(p)
		known[pair.Key] = pair.Revision
		event.List = append(event.List, pair)
	}
	if !yield(event, nil) {
		return nil, state, nil
	}
	return known, state, nil
}

// now is the server's count of changes. The index of a list is no such count: it goes back when deleted keys are
// forgotten.
func (s *Store) now(ctx context.Context) (kv.State, error) {
	// What is there already would not be written again.
	if _, err := s.client.KV().Put(&api.KVPair{Key: s.beacon, Value: []byte(rand.Text())}, writing(ctx)); err != nil {
		return kv.State{}, fail(err)
	}
	p, _, err := s.client.KV().Get(s.beacon, query(ctx))
	if err != nil || p == nil {
		return kv.State{}, errors.Join(errors.New("the key that counts changes is not there"), fail(err))
	}
	return kv.State{Revision: p.ModifyIndex}, nil
}

// list reads all keys; with an index, when something has changed after it or after waitTime.
func (s *Store) list(ctx context.Context, after uint64) (api.KVPairs, *api.QueryMeta, error) {
	limit := table.CallTimeout
	if after != 0 {
		limit += waitTime + waitTime/16
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	q := query(limited)
	q.WaitIndex, q.WaitTime = after, waitTime
	pairs, meta, err := s.client.KV().List(s.prefix, q)
	return pairs, meta, fail(err)
}

func (s *Store) pair(p *api.KVPair) kv.Pair {
	return kv.Pair{Key: strings.TrimPrefix(p.Key, s.prefix), Value: p.Value, Revision: kv.Revision(p.ModifyIndex)}
}

// compare yields what differs from what is known, and makes it known.
func (s *Store) compare(
	known map[string]kv.Revision,
	pairs api.KVPairs,
	state kv.State,
	yield func(kv.Event, error) bool,
) bool {
	there := make(map[string]struct{}, len(pairs))
	for _, p := range pairs {
		pair := s.pair(p)
		there[pair.Key] = struct{}{}
		if known[pair.Key] == pair.Revision {
			continue
		}
		known[pair.Key] = pair.Revision
		if !yield(kv.Event{Kind: kv.EventPut, Pair: pair, State: state}, nil) {
			return false
		}
	}
	for key := range known {
		if _, is := there[key]; is {
			continue
		}
		delete(known, key)
		if !yield(kv.Event{Kind: kv.EventDelete, Pair: kv.Pair{Key: key}, State: state}, nil) {
			return false
		}
	}
	return true
}
