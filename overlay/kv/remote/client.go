package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// errGone says that there is no other side any more.
var errGone = errors.New("the program that speaks to the store has ended")

// Store is a kv.Store of another process.
type Store struct {
	conn   io.ReadWriteCloser
	reader sync.WaitGroup

	writing sync.Mutex // held while out is used
	out     *gob.Encoder

	mu     sync.Mutex // guards what follows
	next   uint64     // number of the next call
	calls  map[uint64]*call
	gone   bool
	closed bool
}

var _ kv.Store = (*Store)(nil)

// call is one that has no last answer yet.
type call struct {
	mu      sync.Mutex // guards answers
	answers []answer
	wake    chan struct{} // has room for one
	gone    chan struct{} // closed when there are no more answers
}

// New is the store that the other side of a stream opens. It closes the stream when it is closed.
func New(conn io.ReadWriteCloser, l kv.Location) (*Store, error) {
	s := &Store{conn: conn, out: gob.NewEncoder(conn), calls: map[uint64]*call{}}
	s.reader.Go(s.read)
	_, err := s.once(context.Background(), request{Op: opOpen, Location: l})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// read hands out answers.
func (s *Store) read() {
	in := gob.NewDecoder(s.conn)
	for {
		var a answer
		if in.Decode(&a) != nil {
			break
		}
		s.mu.Lock()
		c := s.calls[a.ID]
		if a.Last {
			delete(s.calls, a.ID)
		}
		s.mu.Unlock()
		if c != nil {
			c.add(a)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	for id, c := range s.calls {
		close(c.gone)
		delete(s.calls, id)
	}
}

func (c *call) add(a answer) {
	c.mu.Lock()
	c.answers = append(c.answers, a)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// begin sends a request.
func (s *Store) begin(r request) (uint64, *call, error) {
	c := &call{wake: make(chan struct{}, 1), gone: make(chan struct{})}
	s.mu.Lock()
	if s.gone || s.closed {
		s.mu.Unlock()
		return 0, nil, errGone
	}
	s.next++
	r.ID = s.next
	s.calls[r.ID] = c
	s.mu.Unlock()
	return r.ID, c, s.send(r)
}

func (s *Store) send(r request) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.out.Encode(r) != nil {
		return errGone
	}
	return nil
}

// cancel gives a call up.
func (s *Store) cancel(id uint64) { _ = s.send(request{ID: id, Op: opCancel}) }

// wait is the next answers of a call.
func (c *call) wait(ctx context.Context) ([]answer, error) {
	for {
		c.mu.Lock()
		answers := c.answers
		c.answers = nil
		c.mu.Unlock()
		if len(answers) > 0 {
			return answers, nil
		}
		select {
		case <-c.wake:
		case <-c.gone:
			return nil, errGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// once makes a call with one answer.
func (s *Store) once(ctx context.Context, r request) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	id, c, err := s.begin(r)
	if err != nil {
		return answer{}, err
	}
	answers, err := c.wait(ctx)
	if err != nil {
		s.cancel(id)
		return answer{}, err
	}
	return answers[0], answers[0].Err.decode()
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Pair, error) {
	a, err := s.once(ctx, request{Op: opGet, Key: key})
	return a.Pair, err
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, is kv.Revision, on kv.Lease) error {
	r := request{Op: opPut, Key: key, Value: value, Revision: is}
	if on != nil {
		r.Lease = on.(*lease).id
	}
	_, err := s.once(ctx, r)
	return err
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, is kv.Revision) error {
	_, err := s.once(ctx, request{Op: opDelete, Key: key, Revision: is})
	return err
}

// Watch implements kv.Store.
func (s *Store) Watch(ctx context.Context) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		id, c, err := s.begin(request{Op: opWatch})
		if err != nil {
			yield(kv.Event{}, err)
			return
		}
		defer s.cancel(id)
		for {
			answers, err := c.wait(ctx)
			if err != nil {
				if ctx.Err() == nil {
					yield(kv.Event{}, err)
				}
				return
			}
			for _, a := range answers {
				if a.Last {
					if err := a.Err.decode(); err != nil && ctx.Err() == nil {
						yield(kv.Event{}, err)
					}
					return
				}
				if !yield(a.Event, nil) {
					return
				}
			}
		}
	}
}

// lease is a kv.Lease.
type lease struct {
	store *Store
	id    uint64
	lost  chan struct{}
}

// Lease implements kv.Store.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (kv.Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	id, c, err := s.begin(request{Op: opLease, TTL: ttl})
	if err != nil {
		return nil, err
	}
	answers, err := c.wait(ctx)
	if err != nil {
		s.cancel(id)
		return nil, err
	}
	if err := answers[0].Err.decode(); err != nil {
		return nil, err
	}
	l := &lease{store: s, id: id, lost: make(chan struct{})}
	if len(answers) > 1 {
		close(l.lost)
		return l, nil
	}
	s.reader.Go(func() {
		defer close(l.lost)
		_, _ = c.wait(context.Background()) // the last answer, or that there are no more
	})
	s.reader.Go(func() { l.sayHeard(ttl / heardParts) })
	return l, nil
}

// sayHeard tells the other side now and then that this process runs, until the lease has ended.
func (l *lease) sayHeard(every time.Duration) {
	ticks := time.NewTicker(max(every, time.Millisecond))
	defer ticks.Stop()
	for {
		select {
		case <-l.lost:
			return
		case <-ticks.C:
			if l.store.send(request{Op: opHeard, Lease: l.id}) != nil {
				return
			}
		}
	}
}

// Lost implements kv.Lease.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Revoke implements kv.Lease.
func (l *lease) Revoke(ctx context.Context) error {
	_, err := l.store.once(ctx, request{Op: opRevoke, Lease: l.id})
	return err
}

// Close implements kv.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := s.conn.Close()
	s.reader.Wait()
	return err
}
