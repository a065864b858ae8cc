// Package memory is a key-value store in memory, with the faults of a real one. It is for tests of what uses a store,
// and shows what package kv expects of all of them in its plainest form.
//
//	server := memory.New()
//	a, b := server.Open(), server.Open()            // two hosts
//	a.Set(memory.Fault{Err: errors.New("refused")}) // host a does not reach it
//	backup := server.Backup()
//	server.Restore(backup)
package memory

import (
	"context"
	"errors"
	"iter"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// errCompacted ends watches whose history is gone.
var errCompacted = errors.New("the history was compacted")

// Server is the store.
type Server struct {
	mu      sync.Mutex // guards all that follows, and the clients' and leases' fields
	data    data
	id      int // of the data; another after each restored backup
	clients map[*Client]struct{}
	leases  map[*lease]struct{}
}

// data is what a backup has.
type data struct {
	pairs    map[string]kv.Pair
	revision uint64
}

// New makes an empty store.
func New() *Server {
	return &Server{
		data: data{pairs: map[string]kv.Pair{}}, clients: map[*Client]struct{}{}, leases: map[*lease]struct{}{},
	}
}

// Fault is what is wrong between a client and the server. The zero value is nothing.
type Fault struct {
	Err   error         // each call fails with it, and watches end with it
	Hang  bool          // nothing is answered, as when packets are dropped
	Delay time.Duration // each call takes so much longer
}

// Client is one host's connection to the server.
type Client struct {
	server  *Server
	fault   Fault
	changed chan struct{} // closed when fault changes
	watches map[*watch]struct{}
	closed  bool
}

var _ kv.Store = (*Client)(nil)

// Open connects a host.
func (s *Server) Open() *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Client{server: s, changed: make(chan struct{}), watches: map[*watch]struct{}{}}
	s.clients[c] = struct{}{}
	return c
}

// Set makes a fault, or ends it.
func (c *Client) Set(f Fault) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.fault = f
	close(c.changed)
	c.changed = make(chan struct{})
	if f.Err != nil {
		c.endWatches(f.Err)
	}
}

// Compact ends all watches: they have to list again.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		c.endWatches(errCompacted)
	}
}

// Backup is a copy of what is stored.
type Backup struct{ data data }

// Backup copies what is stored, without what hangs on leases: theirs would have ended.
func (s *Server) Backup() Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	pairs := maps.Clone(s.data.pairs)
	for l := range s.leases {
		for key := range l.keys {
			delete(pairs, key)
		}
	}
	return Backup{data{pairs, s.data.revision}}
}

// Restore puts a backup in the place of what is stored. All leases and watches end.
func (s *Server) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.leases {
		l.keys = nil // the backup's keys are nobody's
		l.end()
	}
	s.data = data{maps.Clone(b.data.pairs), b.data.revision}
	s.id++
	for c := range s.clients {
		c.endWatches(errors.New("the server was restarted"))
	}
}

// Keys are all keys with their values.
func (s *Server) Keys() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]string{}
	for key, p := range s.data.pairs {
		keys[key] = string(p.Value)
	}
	return keys
}

// state is that of the data. The caller holds the lock.
func (s *Server) state() kv.State { return kv.State{ID: strconv.Itoa(s.id), Revision: s.data.revision} }

// ready waits as the fault says, and takes the server's lock if there is no error.
func (c *Client) ready(ctx context.Context) error {
	for {
		c.server.mu.Lock()
		fault, changed := c.fault, c.changed
		switch {
		case c.closed:
			c.server.mu.Unlock()
			return errors.New("the client is closed")
		case ctx.Err() != nil:
			c.server.mu.Unlock()
			return ctx.Err()
		case fault.Err != nil:
			c.server.mu.Unlock()
			return fault.Err
		case !fault.Hang && fault.Delay == 0:
			return nil
		}
		c.server.mu.Unlock()
		var after <-chan time.Time
		if !fault.Hang {
			t := time.NewTimer(fault.Delay)
			defer t.Stop()
			after = t.C
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-after:
			c.server.mu.Lock()
			return nil
		}
	}
}

// Get implements kv.Store.
func (c *Client) Get(ctx context.Context, key string) (kv.Pair, error) {
	if err := c.ready(ctx); err != nil {
		return kv.Pair{}, err
	}
	defer c.server.mu.Unlock()
	p, is := c.server.data.pairs[key]
	if !is {
		return kv.Pair{}, kv.ErrNotFound
	}
	return p, nil
}

// matches says whether a key has a revision. The caller holds the lock.
func (s *Server) matches(key string, is kv.Revision) bool {
	return is == kv.Whatever || s.data.pairs[key].Revision == is
}

// Put implements kv.Store.
func (c *Client) Put(ctx context.Context, key string, value []byte, is kv.Revision, on kv.Lease) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	s := c.server
	defer s.mu.Unlock()
	if !s.matches(key, is) {
		return kv.ErrConflict
	}
	for l := range s.leases {
		delete(l.keys, key)
	}
	if on != nil {
		l := on.(*lease)
		if l.ended {
			return errors.New("the lease has ended")
		}
		l.keys[key] = struct{}{}
	}
	s.data.revision++
	p := kv.Pair{Key: key, Value: append([]byte(nil), value...), Revision: kv.Revision(s.data.revision)}
	s.data.pairs[key] = p
	s.tell(kv.Event{Kind: kv.EventPut, Pair: p})
	return nil
}

// Delete implements kv.Store.
func (c *Client) Delete(ctx context.Context, key string, is kv.Revision) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	defer c.server.mu.Unlock()
	if _, there := c.server.data.pairs[key]; there && !c.server.matches(key, is) {
		return kv.ErrConflict
	}
	c.server.remove(key)
	return nil
}

// remove deletes a key. The caller holds the lock.
func (s *Server) remove(key string) {
	if _, is := s.data.pairs[key]; !is {
		return
	}
	delete(s.data.pairs, key)
	s.data.revision++
	s.tell(kv.Event{Kind: kv.EventDelete, Pair: kv.Pair{Key: key}})
}

// Close implements kv.Store.
func (c *Client) Close() error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.closed = true
	c.endWatches(errors.New("the client is closed"))
	delete(c.server.clients, c)
	return nil
}

// watch is one call of Watch.
type watch struct {
	events []kv.Event
	err    error
	wake   chan struct{} // has room for one
}

func (w *watch) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// tell gives an event to all watches. The caller holds the lock.
func (s *Server) tell(e kv.Event) {
	e.State = s.state()
	for c := range s.clients {
		for w := range c.watches {
			w.events = append(w.events, e)
			w.notify()
		}
	}
}

// endWatches ends those of a client. The caller holds the lock.
func (c *Client) endWatches(err error) {
	for w := range c.watches {
		w.err = err
		w.notify()
	}
	clear(c.watches)
}

// Watch implements kv.Store.
func (c *Client) Watch(ctx context.Context) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		if err := c.ready(ctx); err != nil {
			yield(kv.Event{}, err)
			return
		}
		s := c.server
		w := &watch{wake: make(chan struct{}, 1)}
		w.events = []kv.Event{{Kind: kv.EventList, State: s.state()}}
		for _, p := range s.data.pairs {
			w.events[0].List = append(w.events[0].List, p)
		}
		w.notify()
		c.watches[w] = struct{}{}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(c.watches, w)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			if err := c.ready(ctx); err != nil {
				yield(kv.Event{}, err)
				return
			}
			events, err := w.events, w.err
			w.events = nil
			s.mu.Unlock()
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(kv.Event{}, err)
				return
			}
		}
	}
}
