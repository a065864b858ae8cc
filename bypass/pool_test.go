package bypass

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeSandbox counts what factories in it do.
type fakeSandbox struct {
	mu              sync.Mutex
	started, closed int
	made            map[Direction]int
	startErr        error
	refuse          error // what Make says
	changed         bool  // what Changed says once
	watchClosed     bool
	failed          []error
}

func (s *fakeSandbox) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeSandbox) start(context.Context) (Factory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.startErr != nil {
		return nil, s.startErr
	}
	s.started++
	return fakeFactory{s}, nil
}

type fakeFactory struct{ s *fakeSandbox }

func (f fakeFactory) Make(d Direction, _ bool, count int) (fds []int, refused, err error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.refuse != nil {
		return nil, f.s.refuse, nil
	}
	for range count {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return fds, nil, err
		}
		fds = append(fds, fd)
	}
	f.s.made[d] += count
	return fds, nil, nil
}

func (f fakeFactory) Watch() (Watch, error) { return fakeWatch(f), nil }
func (f fakeFactory) Close()                { f.s.set(func() { f.s.closed++ }) }

type fakeWatch struct{ s *fakeSandbox }

func (w fakeWatch) Close() { w.s.set(func() { w.s.watchClosed = true }) }
func (w fakeWatch) Changed() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	changed := w.s.changed
	w.s.changed = false
	return changed
}

// withPool runs f with a pool in a bubble with a clock of its own.
func withPool(t *testing.T, f func(t *testing.T, p *Pool, s *fakeSandbox)) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSandbox{made: map[Direction]int{}}
		p := New(s.start, func(err error) { s.set(func() { s.failed = append(s.failed, err) }) })
		f(t, p, s)
		p.Close()
		if s.started != s.closed {
			t.Errorf("%d factories were started, %d closed", s.started, s.closed)
		}
	})
}

// get takes a socket and closes it.
func get(t *testing.T, p *Pool, d Direction) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	fd, err := p.Get(ctx, d, false)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func TestPoolIsFilledOnDemand(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		time.Sleep(time.Minute)
		if s.started != 0 {
			t.Error("a factory was started though nobody wanted a socket")
		}
		for range 10 * batchSize {
			if err := get(t, p, Outbound); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if s.started != 1 || s.made[Inbound] != 0 {
			t.Errorf("%d factories, %v", s.started, s.made)
		}
		time.Sleep(2 * idleTimeout)
		synctest.Wait()
		if s.closed != 1 || len(p.free[kindOf(Outbound, false)]) != idleSize {
			t.Errorf("idle: %d factories ended, %d sockets", s.closed, len(p.free[kindOf(Outbound, false)]))
		}
		for range idleSize - lowMark { // now and then a connection
			if err := get(t, p, Outbound); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if s.started != 1 {
			t.Error("a factory was started for each connection")
		}
	})
}

func TestPrefilledPoolDoesNotLinger(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		p.Prefill(Inbound, true, true)
		synctest.Wait()
		if s.made[Inbound] != 2*batchSize || s.closed != 1 {
			t.Errorf("made %v, %d factories ended", s.made, s.closed)
		}
	})
}

func TestPoolWithoutSocketsSaysSo(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		s.startErr = errors.New("no way in")
		if err := get(t, p, Inbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("no sandbox: %v", err)
		}
		s.set(func() { s.startErr = nil })
		if err := get(t, p, Inbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("at once: %v", err)
		}
		time.Sleep(retryAfter + time.Second)
		if err := get(t, p, Inbound); err != nil {
			t.Errorf("later: %v", err)
		}
		if len(s.failed) != 1 {
			t.Errorf("told: %v", s.failed)
		}
	})
}

func TestSuspendedDirectionComesBackLaterEachTime(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		for i := range 3 {
			if err := get(t, p, Outbound); err != nil {
				t.Fatal(i, err)
			}
			before := s.started
			p.Suspend(Outbound)
			time.Sleep(retryAfter<<i - time.Second)
			if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) {
				t.Errorf("%d: %v", i, err)
			}
			if err := get(t, p, Inbound); err != nil {
				t.Errorf("%d: the other direction: %v", i, err)
			}
			time.Sleep(2 * time.Second)
			if err := get(t, p, Outbound); err != nil || s.started == before {
				t.Errorf("%d: the sandbox was not prepared again: %v", i, err)
			}
		}
	})
}

func TestPoolGivesWayToTheContainersRules(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		for _, d := range []Direction{Inbound, Outbound} {
			if err := get(t, p, d); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s.set(func() { s.changed, s.refuse = true, ErrContainerRules })
		for range 5 {
			for _, d := range []Direction{Inbound, Outbound} {
				if err := get(t, p, d); !errors.Is(err, ErrNoSocket) {
					t.Errorf("with rules, %s: %v", d, err)
				}
			}
			time.Sleep(time.Minute)
		}
		if s.started > 3 {
			t.Errorf("%d factories looked at rules that did not change", s.started)
		}
		s.set(func() { s.changed, s.refuse = true, nil })
		for _, d := range []Direction{Inbound, Outbound} {
			if err := get(t, p, d); err != nil {
				t.Errorf("without rules, %s: %v", d, err)
			}
		}
	})
}

func TestClosedPoolKeepsNothing(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		if err := get(t, p, Inbound); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.Close()
		p.Close()
		if !s.watchClosed || len(p.free[kindOf(Inbound, false)]) != 0 {
			t.Errorf("watch closed: %v, sockets: %d", s.watchClosed, len(p.free[kindOf(Inbound, false)]))
		}
		if err := get(t, p, Inbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("closed: %v", err)
		}
	})
}
