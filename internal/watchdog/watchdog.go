// Package watchdog notices when a part of the program does not answer any more.
//
// A [Watchdog] tries the locks that it was told of, one round after another. One that is free costs a compare-and-swap.
// For one that is held, a goroutine waits; if it has still not got the lock after the lock's bound, the watchdog logs
// which one it is with the stacks of all goroutines, one of which holds it, and stops calling Alive until all locks are
// given again. So a service manager that Alive tells about (sd_notify(3), WATCHDOG=1) restarts the program:
//
//	w := watchdog.New(watchdog.Config{Interval: interval, Alive: notify, Logger: log})
//	defer w.Close()
//	defer w.Watch(watchdog.Mutex("daemon", &d.mu, 0))()
//
// It never takes a lock for longer than the moment to let it go again, and it ends nothing by itself. Time in which the
// whole process was stopped (SIGSTOP, a suspended machine) is not held against a lock: a round that comes late begins
// the wait anew.
package watchdog

import (
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// DefaultBound is how long a lock may be held where nothing else is said: a thousand times longer than any of ours is.
const DefaultBound = 10 * time.Second

// defaultInterval is between two rounds where nobody has to be told. It is what a hang is noticed later by.
const defaultInterval = 5 * time.Second

// maxStacks bounds the stacks of all goroutines in the log, in bytes: some thousand goroutines.
const maxStacks = 4 << 20

// Lock is something that can be had and given back, and that is not held for long.
type Lock struct {
	name  string
	bound time.Duration
	try   func() bool // takes it and lets it go; false: it is held
	wait  func()      // the same, waiting for it
}

// Mutex is a lock called name that is never to be held for longer than bound (0: DefaultBound).
func Mutex(name string, mu *sync.Mutex, bound time.Duration) Lock {
	return Lock{
		name:  name,
		bound: bound,
		try: func() bool {
			ok := mu.TryLock()
			if ok {
				mu.Unlock()
			}
			return ok
		},
		wait: func() {
			mu.Lock()
			defer mu.Unlock() // locked to wait, not to hold
		},
	}
}

// RWMutex is the same for a lock with readers. It is tried as a reader: a writer that waits would keep readers off, and
// readers that hold the lock for too long are noticed once somebody wants to write.
func RWMutex(name string, mu *sync.RWMutex, bound time.Duration) Lock {
	return Lock{
		name:  name,
		bound: bound,
		try: func() bool {
			ok := mu.TryRLock()
			if ok {
				mu.RUnlock()
			}
			return ok
		},
		wait: func() {
			mu.RLock()
			defer mu.RUnlock() // locked to wait, not to hold
		},
	}
}

// Prefixed is the same lock with a prefix before its name, to tell apart those of several networks.
func (l Lock) Prefixed(prefix string) Lock {
	l.name = prefix + l.name
	return l
}

// Config says how to watch. The zero value works.
type Config struct {
	Interval time.Duration // between two rounds; 0: five seconds
	Alive    func()        // called in each round in which no lock is overdue; nil: nobody is told
	Logger   *slog.Logger  // nil: slog's default
}

// Watchdog watches locks. Make it with New, end it with Close.
type Watchdog struct {
	cfg  Config
	stop chan struct{}
	done chan struct{}
	once sync.Once
	last time.Time // of the last round; only the watchdog's goroutine uses it

	watched struct {
		sync.Mutex
		locks map[*watch]struct{}
	}
}

// watch is one lock that is watched. Only the watchdog's goroutine uses it.
type watch struct {
	lock    Lock
	since   time.Time     // when a goroutine began to wait for it; zero: none does
	given   chan struct{} // closed when that goroutine has had it
	overdue bool          // it was logged
}

// New starts a watchdog that watches nothing yet.
func New(cfg Config) *Watchdog {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	w := &Watchdog{cfg: cfg, stop: make(chan struct{}), done: make(chan struct{})}
	w.watched.locks = map[*watch]struct{}{}
	go w.run()
	return w
}

// Watch watches locks until what it returns is called.
func (w *Watchdog) Watch(locks ...Lock) (unwatch func()) {
	list := make([]*watch, len(locks))
	w.watched.Lock()
	defer w.watched.Unlock()
	for i, l := range locks {
		if l.bound <= 0 {
			l.bound = DefaultBound
		}
		list[i] = &watch{lock: l}
		w.watched.locks[list[i]] = struct{}{}
	}
	return func() {
		w.watched.Lock()
		defer w.watched.Unlock()
		for _, x := range list {
			delete(w.watched.locks, x)
		}
	}
}

// Close ends the watch. Goroutines that wait for locks which nobody gives stay. Closing again does nothing.
func (w *Watchdog) Close() error {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	return nil
}

func (w *Watchdog) run() {
	defer close(w.done)
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	for {
		if w.round(time.Now()) && w.cfg.Alive != nil {
			w.cfg.Alive()
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

// round tries each lock, and says whether none is overdue.
func (w *Watchdog) round(now time.Time) bool {
	w.watched.Lock()
	list := make([]*watch, 0, len(w.watched.locks))
	for x := range w.watched.locks {
		list = append(list, x)
	}
	w.watched.Unlock()
	stopped := !w.last.IsZero() && now.Sub(w.last) > 2*max(w.cfg.Interval, defaultInterval)
	w.last = now
	alive := true
	for _, x := range list {
		if stopped && !x.overdue {
			x.since = now
		}
		if !w.check(x, now) {
			alive = false
		}
	}
	return alive
}

// check tries one lock, and says whether it is not overdue.
func (w *Watchdog) check(x *watch, now time.Time) bool {
	if x.given != nil {
		select {
		case <-x.given:
			if x.overdue {
				w.cfg.Logger.Warn(
					"a lock is given again",
					"lock",
					x.lock.name,
					"after",
					now.Sub(x.since).Round(time.Second),
				)
			}
			x.given, x.overdue = nil, false
		default:
		}
	}
	switch {
	case x.given == nil && x.lock.try():
	case x.given == nil:
		x.since, x.given = now, make(chan struct{})
		go func(given chan struct{}) {
			x.lock.wait()
			close(given)
		}(x.given)
	case now.Sub(x.since) > x.lock.bound && !x.overdue:
		x.overdue = true
		w.cfg.Logger.Error("a lock is not given: part of the daemon hangs; please report it",
			"lock", x.lock.name, "for", now.Sub(x.since).Round(time.Second), "stacks", stacks())
	}
	return !x.overdue
}

// stacks are those of all goroutines, as far as they fit.
func stacks() string {
	for size := 64 << 10; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= maxStacks {
			return string(b[:n])
		}
	}
}
