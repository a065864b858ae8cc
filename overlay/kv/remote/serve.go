package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay/kv"
)

// maxCalls is how many calls are made at a time; more wait.
const maxCalls = 128

// server is the side that has the store.
type server struct {
	store kv.Store
	calls sync.WaitGroup
	slots chan struct{}

	writing sync.Mutex // held while out is used
	out     *gob.Encoder

	mu      sync.Mutex // guards what follows
	cancels map[uint64]context.CancelFunc
	leases  map[uint64]*heldLease
}

// heldLease is a lease of the other side.
type heldLease struct {
	kv.Lease
	heard chan struct{} // has something to receive when its holder said that it runs
}

// Serve has open open the store that the other side names, and makes its calls until the other side is gone.
func Serve(conn io.ReadWriteCloser, open func(kv.Location) (kv.Store, error)) error {
	in := gob.NewDecoder(conn)
	var first request
	if err := in.Decode(&first); err != nil {
		return fmt.Errorf("the store's location: %w", err)
	}
	s := &server{
		slots: make(chan struct{}, maxCalls), out: gob.NewEncoder(conn),
		cancels: map[uint64]context.CancelFunc{}, leases: map[uint64]*heldLease{},
	}
	var err error
	s.store, err = open(first.Location)
	s.write(answer{ID: first.ID, Err: encodeError(err), Last: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	for {
		var r request
		if err = in.Decode(&r); err != nil {
			break
		}
		s.handle(ctx, r)
	}
	cancel()
	err = errors.Join(eofIsNone(err), conn.Close(), s.store.Close())
	s.calls.Wait()
	return err
}

func eofIsNone(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// write sends an answer. Where the other side is gone, reading ends.
func (s *server) write(a answer) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = s.out.Encode(a)
}

// handle begins a call.
func (s *server) handle(ctx context.Context, r request) {
	if r.Op == opCancel {
		s.mu.Lock()
		cancel := s.cancels[r.ID]
		s.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return
	}
	if r.Op == opHeard {
		if l := s.lease(r.Lease); l != nil {
			select {
			case l.heard <- struct{}{}:
			default:
			}
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.cancels[r.ID] = cancel
	s.mu.Unlock()
	s.calls.Go(func() {
		defer func() {
			cancel()
			s.mu.Lock()
			delete(s.cancels, r.ID)
			s.mu.Unlock()
		}()
		s.call(ctx, r)
	})
}

func (s *server) lease(id uint64) *heldLease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[id]
}

// call makes a call and answers.
func (s *server) call(ctx context.Context, r request) {
	if r.Op != opWatch {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
	}
	a := answer{ID: r.ID, Last: true}
	var err error
	switch r.Op {
	case opGet:
		a.Pair, err = s.store.Get(ctx, r.Key)
	case opPut:
		on := s.lease(r.Lease)
		if r.Lease != 0 && on == nil {
			err = errors.New("the lease has ended")
		} else {
			err = s.put(ctx, r, on)
		}
	case opDelete:
		err = s.store.Delete(ctx, r.Key, r.Revision)
	case opRevoke:
		if on := s.lease(r.Lease); on != nil {
			err = on.Revoke(ctx)
		}
	case opLease:
		err = s.makeLease(ctx, r)
		a.Last = err != nil
	case opWatch:
		for e, watchErr := range s.store.Watch(ctx) {
			if err = watchErr; err != nil {
				break
			}
			s.write(answer{ID: r.ID, Event: e})
		}
	default:
		err = fmt.Errorf("request %d is not known", r.Op)
	}
	a.Err = encodeError(err)
	s.write(a)
}

func (s *server) put(ctx context.Context, r request, on *heldLease) error {
	if on == nil {
		return s.store.Put(ctx, r.Key, r.Value, r.Revision, nil)
	}
	return s.store.Put(ctx, r.Key, r.Value, r.Revision, on.Lease)
}

// makeLease makes a lease. That it is lost is its last answer.
func (s *server) makeLease(ctx context.Context, r request) error {
	l, err := s.store.Lease(ctx, r.TTL)
	if err != nil {
		return err
	}
	held := &heldLease{Lease: l, heard: make(chan struct{}, 1)}
	s.mu.Lock()
	s.leases[r.ID] = held
	s.mu.Unlock()
	s.calls.Go(func() {
		held.hold(r.TTL)
		s.mu.Lock()
		delete(s.leases, r.ID)
		s.mu.Unlock()
		s.write(answer{ID: r.ID, Last: true})
	})
	return nil
}

// hold waits until the lease is lost, at the latest when the store is closed, and revokes it when its holder has not
// said for ttl that it runs.
func (l *heldLease) hold(ttl time.Duration) {
	silence := time.NewTimer(ttl)
	defer silence.Stop()
	for {
		select {
		case <-l.Lost():
			return
		case <-l.heard:
			silence.Reset(ttl)
		case <-silence.C:
			ctx, cancel := context.WithTimeout(context.Background(), ttl)
			_ = l.Revoke(ctx) // where the store does not answer, it is not kept alive any more, and ends there
			cancel()
		}
	}
}
