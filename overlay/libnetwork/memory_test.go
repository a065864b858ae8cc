package libnetwork

import (
	"context"
	"strings"
	"sync"
	"time"
)

// memory is a Store in this process.
type memory struct {
	mu     sync.Mutex
	index  uint64
	pairs  map[string]Pair
	fails  error                // of each call
	lost   error                // of each Put and Delete, which are done all the same
	before func(key string)     // called before each Put and Delete, without the lock
	watch  map[*func()]struct{} // told of each change
}

func newMemory() *memory { return &memory{pairs: map[string]Pair{}, watch: map[*func()]struct{}{}} }

func (s *memory) Get(_ context.Context, key string) (Pair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, is := s.pairs[key]
	if s.fails == nil && !is {
		return Pair{}, ErrNotFound
	}
	return p, s.fails
}

func (s *memory) List(_ context.Context, dir string) (list []Pair, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.pairs {
		if strings.HasPrefix(key, dir+"/") {
			list = append(list, p)
		}
	}
	return list, s.fails
}

func (s *memory) edit(key string, index uint64, value []byte) error {
	if s.before != nil {
		s.before(key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fails != nil:
		return s.fails
	case s.pairs[key].Index != index:
		return ErrConflict
	}
	s.index++
	if value == nil {
		delete(s.pairs, key)
	} else {
		s.pairs[key] = Pair{Key: key, Value: value, Index: s.index}
	}
	for f := range s.watch {
		(*f)()
	}
	return s.lost
}

func (s *memory) Put(_ context.Context, key string, value []byte, index uint64) error {
	return s.edit(key, index, value)
}

func (s *memory) Delete(_ context.Context, key string, index uint64) error {
	return s.edit(key, index, nil)
}

func (s *memory) Beat(ctx context.Context, key, value string, _ time.Duration) error {
	p, _ := s.Get(ctx, key)
	return s.Put(ctx, key, []byte(value), p.Index)
}

func (s *memory) Watch(ctx context.Context, _ string, changed func()) {
	s.mu.Lock()
	s.watch[&changed] = struct{}{}
	s.mu.Unlock()
	changed()
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watch, &changed)
}

func (s *memory) Close() error { return nil }

// text is what a key has.
func (s *memory) text(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.pairs[key].Value)
}
