package watchdog

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// rounds is a watchdog whose rounds the test runs itself, with the time that it says.
func rounds(log *slog.Logger) *Watchdog {
	w := &Watchdog{cfg: Config{Logger: log}}
	w.watched.locks = map[*watch]struct{}{}
	return w
}

// holds has another goroutine hold a lock until release is called, which returns when the watchdog's goroutine has had
// it.
func holds(t *testing.T, w *Watchdog, mu sync.Locker) (release func()) {
	t.Helper()
	held, let, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		mu.Lock()
		close(held)
		<-let
		mu.Unlock()
	}()
	<-held
	return func() {
		close(let)
		<-gone
		w.watched.Lock()
		defer w.watched.Unlock()
		for x := range w.watched.locks {
			if x.given != nil {
				<-x.given
			}
		}
	}
}

func TestLockThatIsNotGivenIsLoggedOnceWithStacks(t *testing.T) {
	var mu sync.Mutex
	var rw sync.RWMutex
	for _, test := range []struct {
		name string
		lock Lock
		hold sync.Locker
	}{
		{"mutex", Mutex("the lock", &mu, 10*time.Second), &mu},
		{"held by a writer", RWMutex("the lock", &rw, 10*time.Second), &rw},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			w := rounds(slog.New(slog.NewTextHandler(&out, nil)))
			w.Watch(test.lock.Prefixed("network red: "))
			start := time.Now()
			at := func(after time.Duration, want bool) {
				t.Helper()
				if got := w.round(start.Add(after)); got != want {
					t.Errorf("after %s the round says %t", after, got)
				}
			}
			at(0, true)
			release := holds(t, w, test.hold)
			at(time.Second, true)
			at(10*time.Second, true) // held, not for too long
			if out.Len() > 0 {
				t.Errorf("logged too early: %s", out.String())
			}
			at(12*time.Second, false)
			at(14*time.Second, false)
			logged := out.String()
			if n := strings.Count(logged, "is not given"); n != 1 {
				t.Errorf("logged %d times: %s", n, logged)
			}
			for _, want := range []string{"level=ERROR", "network red: the lock", "watchdog.holds"} {
				if !strings.Contains(logged, want) {
					t.Errorf("%q is not in the log: %s", want, logged)
				}
			}
			release()
			at(16*time.Second, true)
			if !strings.Contains(out.String(), "given again") {
				t.Errorf("the end is not in the log: %s", out.String())
			}
			at(18*time.Second, true)
		})
	}
}

// TestTimeInWhichTheProcessWasStoppedDoesNotCount has a lock waited for when the process is stopped for an hour.
func TestTimeInWhichTheProcessWasStoppedDoesNotCount(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	w := rounds(slog.New(slog.NewTextHandler(&out, nil)))
	w.Watch(Mutex("the lock", &mu, 10*time.Second))
	start := time.Now()
	release := holds(t, w, &mu)
	for _, after := range []time.Duration{0, 5 * time.Second, time.Hour, time.Hour + 10*time.Second} {
		if !w.round(start.Add(after)) {
			t.Errorf("after %s a lock is overdue: %s", after, out.String())
		}
	}
	if w.round(start.Add(time.Hour + 15*time.Second)) {
		t.Error("a lock that is not given after the stop is not overdue")
	}
	release()
}

func TestLockThatIsHeldForAMomentIsAlive(t *testing.T) {
	var mu sync.Mutex
	w := rounds(slog.New(slog.DiscardHandler))
	w.Watch(Mutex("busy", &mu, 0))
	start := time.Now()
	for i := range 100 { // held in each round, by another each time
		release := holds(t, w, &mu)
		if !w.round(start.Add(time.Duration(i) * time.Second)) {
			t.Fatalf("overdue in round %d", i)
		}
		release()
	}
}

func TestReadersAreNotKeptOff(t *testing.T) {
	var rw sync.RWMutex
	rw.RLock()
	defer rw.RUnlock()
	w := rounds(slog.New(slog.DiscardHandler))
	w.Watch(RWMutex("read", &rw, 0))
	if !w.round(time.Now()) {
		t.Error("readers alone are no hang")
	}
	if !rw.TryRLock() {
		t.Fatal("the watchdog keeps readers off")
	}
	rw.RUnlock()
}

func TestWhatIsNotWatchedAnyMoreMayHang(t *testing.T) {
	var mu sync.Mutex
	w := rounds(slog.New(slog.DiscardHandler))
	unwatch := w.Watch(Mutex("gone", &mu, time.Second))
	mu.Lock()
	defer mu.Unlock()
	start := time.Now()
	w.round(start)
	if w.round(start.Add(2 * time.Second)) {
		t.Error("it is not overdue")
	}
	unwatch()
	if !w.round(start.Add(time.Minute)) {
		t.Error("what is not watched counts")
	}
}

func TestAliveIsCalledUntilClose(t *testing.T) {
	calls := make(chan struct{}, 100)
	w := New(Config{Interval: time.Millisecond, Alive: func() {
		select {
		case calls <- struct{}{}:
		default:
		}
	}})
	for range 3 {
		<-calls
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // again is no harm
	for len(calls) > 0 {
		<-calls
	}
	select {
	case <-calls:
		t.Error("called after Close")
	default:
	}
}
