package bypass

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// fakeSandbox counts what factories in it do.
type fakeSandbox struct {
	mu              sync.Mutex
	started, closed int
	made            map[Direction]int
	orders          []order      // what Make was called with
	kinds           map[int]kind // of the sockets, by descriptor
	startErr        error
	refuse          error         // what Make says
	broken          error         // what Make says of the factory
	hold            chan struct{} // Make waits until it is closed, or the pool is; nil: it does not
	watches         int
	watchErr        error
	changed         bool // what Changed says once
	watchClosed     bool
	failed          []error
	pipe            [2]int // each socket is a copy of its second end
}

func (s *fakeSandbox) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeSandbox) start(ctx context.Context) (Factory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.startErr != nil {
		return nil, s.startErr
	}
	s.started++
	return fakeFactory{s, ctx}, nil
}

type fakeFactory struct {
	s   *fakeSandbox
	ctx context.Context // the process of a factory is killed at its end
}

func (f fakeFactory) Make(d Direction, ipv6 bool, count int) (fds []int, refused, err error) {
	f.s.mu.Lock()
	f.s.orders = append(f.s.orders, order{Direction: d, IPv6: ipv6, Count: count})
	hold := f.s.hold
	f.s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-f.ctx.Done():
			return nil, nil, f.ctx.Err()
		}
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.refuse != nil || f.s.broken != nil {
		return nil, f.s.refuse, f.s.broken
	}
	for range count {
		fd, err := sockio.DupFD(f.s.pipe[1])
		if err != nil {
			return fds, nil, err
		}
		fds = append(fds, fd)
		f.s.kinds[fd] = kindOf(d, ipv6)
	}
	f.s.made[d] += count
	return fds, nil, nil
}

func (f fakeFactory) Watch() (Watch, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.watches++
	return fakeWatch{f.s}, f.s.watchErr
}

func (f fakeFactory) Close() { f.s.set(func() { f.s.closed++ }) }

type fakeWatch struct{ s *fakeSandbox }

func (w fakeWatch) Close() { w.s.set(func() { w.s.watchClosed = true }) }
func (w fakeWatch) Changed() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	changed := w.s.changed
	w.s.changed = false
	return changed
}

// allClosed says whether no socket is open any more: a pipe has an end only then.
func (s *fakeSandbox) allClosed(t *testing.T) bool {
	t.Helper()
	_ = unix.Close(s.pipe[1])
	p := []unix.PollFd{{Fd: int32(s.pipe[0])}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Error(err)
	}
	_ = unix.Close(s.pipe[0])
	return p[0].Revents&unix.POLLHUP != 0
}

// withPool runs f with a pool in a bubble with a clock of its own. What f gets of the pool it closes.
func withPool(t *testing.T, f func(t *testing.T, p *Pool, s *fakeSandbox)) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSandbox{made: map[Direction]int{}, kinds: map[int]kind{}}
		if err := unix.Pipe2(s.pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		p := New(s.start, func(err error) { s.set(func() { s.failed = append(s.failed, err) }) })
		f(t, p, s)
		p.Close()
		if s.started != s.closed {
			t.Errorf("%d factories were started, %d closed", s.started, s.closed)
		}
		if !s.allClosed(t) {
			t.Error("sockets are left open")
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

// silence leaves connections to one destination after the other unanswered, until the pool has no more sockets for
// them.
func silence(p *Pool) {
	for i := range unansweredInRow {
		p.Unanswered(destination(i))
	}
}

// destination is one of many.
func destination(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1+i))
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
			silence(p)
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
