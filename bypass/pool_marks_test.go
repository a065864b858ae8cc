package bypass

// All tests here run in bubbles of testing/synctest: time.Sleep there waits in the bubble's own clock, which moves on
// once nothing else can run, and so takes no time and waits for nothing real.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// counts are how many sockets were ordered each time.
func (s *fakeSandbox) counts() (list []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		list = append(list, o.Count)
	}
	return list
}

// left is how many sockets of a kind a pool has.
func left(p *Pool, d Direction, ipv6 bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free[kindOf(d, ipv6)])
}

// takes gets n sockets, one after the other, and lets the factory catch up after each.
func takes(t *testing.T, p *Pool, d Direction, n int) {
	t.Helper()
	for range n {
		if err := get(t, p, d); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
}

func TestKindsAreDirectionsAndFamilies(t *testing.T) {
	seen := map[kind]bool{}
	for d := range directions {
		for _, ipv6 := range []bool{false, true} {
			k := kindOf(d, ipv6)
			if k < 0 || int(k) >= kinds || seen[k] || k.direction() != d || k.ipv6() != ipv6 {
				t.Errorf("%s, IPv6 %v: kind %d of %d, %s, %v", d, ipv6, k, kinds, k.direction(), k.ipv6())
			}
			seen[k] = true
		}
	}
	if len(seen) != kinds {
		t.Errorf("%d kinds, want %d", len(seen), kinds)
	}
}

func TestRunningFactoryMakesMoreBelowHalfOfABatch(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		takes(t, p, Outbound, batchSize/2+1) // the last of them found half of the batch
		if got := s.counts(); !slices.Equal(got, []int{batchSize}) {
			t.Errorf("with half of the first batch left: %v", got)
		}
		takes(t, p, Outbound, 1)
		if got := s.counts(); !slices.Equal(got, []int{batchSize, batchSize}) || s.started != 1 {
			t.Errorf("below half: %v by %d factories", got, s.started)
		}
	})
}

func TestFactoryIsStartedAgainBelowTheLowMark(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		takes(t, p, Inbound, 1)
		time.Sleep(2 * idleTimeout)
		synctest.Wait()
		takes(t, p, Inbound, idleSize-lowMark+1) // the last of them found as many as the mark
		if s.started != 1 {
			t.Errorf("%d factories were started for the first %d sockets", s.started, idleSize-lowMark+1)
		}
		takes(t, p, Inbound, 1)
		if got := s.counts(); s.started != 2 || !slices.Equal(got, []int{batchSize, batchSize}) {
			t.Errorf("below the mark: %d factories, %v", s.started, got)
		}
	})
}

// TestUsedUpPoolGrows uses all sockets while the factory makes no others.
func TestUsedUpPoolGrows(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		takes(t, p, Outbound, 1)
		hold := make(chan struct{})
		s.set(func() { s.hold = hold })
		takes(t, p, Outbound, batchSize-1)
		before := time.Now()
		if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) || time.Since(before) != 0 {
			t.Errorf("used up: %v after %v", err, time.Since(before))
		}
		s.set(func() { s.hold = nil })
		close(hold)
		synctest.Wait()
		if got, want := s.counts(), []int{batchSize, batchSize, largeBatch}; !slices.Equal(got, want) {
			t.Errorf("%v were made, want %v", got, want)
		}
		time.Sleep(2 * idleTimeout)
		synctest.Wait()
		takes(t, p, Outbound, idleSize)
		if got := s.counts(); got[len(got)-1] != batchSize {
			t.Errorf("%v were made: an idle time later batches are large yet", got)
		}
	})
}

func TestFirstGetWaits(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		hold := make(chan struct{})
		s.set(func() { s.hold = hold })
		before := time.Now()
		if err := get(t, p, Inbound); !errors.Is(err, ErrNoSocket) || time.Since(before) != firstWait {
			t.Errorf("%v after %v", err, time.Since(before))
		}
		before = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), firstWait/2)
		defer cancel()
		if _, err := p.Get(ctx, Inbound, false); !errors.Is(err, ErrNoSocket) || time.Since(before) != firstWait/2 {
			t.Errorf("with a context: %v after %v", err, time.Since(before))
		}
		got := make(chan error)
		go func() { got <- get(t, p, Inbound) }()
		synctest.Wait()
		close(hold)
		if err := <-got; err != nil {
			t.Errorf("one that waited when sockets came: %v", err)
		}
	})
}

func TestPrefillMakesTheFamiliesAskedFor(t *testing.T) {
	for _, c := range []struct{ ipv4, ipv6 bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("%v %v", c.ipv4, c.ipv6), func(t *testing.T) {
			withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
				p.Prefill(Datagram, c.ipv4, c.ipv6)
				synctest.Wait()
				for _, ipv6 := range []bool{false, true} {
					asked := ipv6 && c.ipv6 || !ipv6 && c.ipv4
					made := slices.Contains(s.orders, order{Direction: Datagram, IPv6: ipv6, Count: batchSize})
					if n := left(p, Datagram, ipv6); made != asked || asked && n != idleSize || !asked && n > 0 {
						t.Errorf("IPv6 %v: made %v, %d are left", ipv6, s.orders, n)
					}
				}
				before := s.started
				if err := get(t, p, Datagram); c.ipv4 && (err != nil || s.started != before) {
					t.Errorf("first Get: %v, %d factories", err, s.started)
				}
			})
		})
	}
}

// TestSuspensionDoublesUpToABound: the last moment of each has no sockets, the next one has.
func TestSuspensionDoublesUpToABound(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		for i, minutes := range []float64{0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512} {
			takes(t, p, Outbound, 1)
			silence(p)
			if n := left(p, Outbound, false); n != 0 {
				t.Errorf("suspended %d times: %d sockets are left", i+1, n)
			}
			time.Sleep(time.Duration(minutes * float64(time.Minute)))
			if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) {
				t.Errorf("suspended %d times: within %v minutes: %v", i+1, minutes, err)
			}
			time.Sleep(time.Nanosecond)
		}
		if err := get(t, p, Outbound); err != nil || len(s.failed) > 0 {
			t.Errorf("at the end: %v; failures %v", err, s.failed)
		}
	})
}

// TestFailuresPause has a factory fail in each way, once.
func TestFailuresPause(t *testing.T) {
	other := errors.New("for some reason")
	rules := fmt.Errorf("a table: %w", ErrContainerRules)
	for _, c := range []struct {
		name    string
		fail    func(*fakeSandbox)
		pause   time.Duration
		both    bool // the other direction has none either
		changes bool // a change to the container's rules ends the pause
	}{
		{"no process", func(s *fakeSandbox) { s.startErr = other }, retryAfter, true, false},
		{"no watch", func(s *fakeSandbox) { s.watchErr = other }, retryAfter, true, false},
		{"broken", func(s *fakeSandbox) { s.broken = other }, retryAfter, true, false},
		{"refused", func(s *fakeSandbox) { s.refuse = other }, refusedFor, false, false},
		{"rules", func(s *fakeSandbox) { s.refuse = rules }, givesWayFor, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
				none := func(when string, d Direction) {
					t.Helper()
					if err := get(t, p, d); !errors.Is(err, ErrNoSocket) {
						t.Errorf("%s, %s: %v", when, d, err)
					}
				}
				began := time.Now()
				s.set(func() { c.fail(s) })
				none("failing", Inbound)
				synctest.Wait()
				s.set(func() { s.startErr, s.watchErr, s.broken, s.refuse = nil, nil, nil, nil })
				if len(s.failed) != 1 || !errors.Is(s.failed[0], other) && !errors.Is(s.failed[0], rules) {
					t.Errorf("told: %v", s.failed)
				}
				if c.both {
					none("at once", Outbound)
				} else if err := get(t, p, Outbound); err != nil {
					t.Errorf("the other direction: %v", err)
				}
				time.Sleep(c.pause / 2)
				s.set(func() { s.changed = s.watches > 0 })
				if c.changes {
					takes(t, p, Inbound, 1)
					return
				}
				none("after a change", Inbound)
				time.Sleep(c.pause - time.Since(began))
				none("at the last moment", Inbound)
				time.Sleep(time.Nanosecond)
				takes(t, p, Inbound, 1)
				if len(s.failed) != 1 {
					t.Errorf("told: %v", s.failed)
				}
			})
		})
	}
}

// TestUnansweredBecauseOfRules: the container's rules explain why a connection is not answered, and nothing is left
// of it once they are gone.
func TestUnansweredBecauseOfRules(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		s.set(func() { s.refuse = ErrContainerRules })
		if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("with rules: %v", err)
		}
		silence(p)
		s.set(func() { s.changed, s.refuse = true, nil })
		takes(t, p, Outbound, 1)
		if p.Avoids(destination(0)) {
			t.Error("a destination is avoided")
		}
	})
}

// TestChangedRulesEndNoSuspension: connections that were not answered before there were rules are not explained by
// them.
func TestChangedRulesEndNoSuspension(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		takes(t, p, Outbound, 1)
		silence(p)
		s.set(func() { s.changed = true })
		if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("suspended, and rules changed: %v", err)
		}
		time.Sleep(retryAfter + time.Nanosecond)
		takes(t, p, Outbound, 1)
	})
}

// TestChangedRulesRenewTheSockets: what was made before a change is closed, and another factory prepares the sandbox.
func TestChangedRulesRenewTheSockets(t *testing.T) {
	for _, idle := range []bool{false, true} {
		t.Run(fmt.Sprintf("idle %v", idle), func(t *testing.T) {
			withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
				takes(t, p, Inbound, 1)
				if idle {
					time.Sleep(2 * idleTimeout)
					synctest.Wait()
				}
				s.set(func() { s.changed = true })
				takes(t, p, Inbound, 1)
				if got, n := s.counts(), left(p, Inbound, false); s.started != 2 || s.watches != 1 ||
					!slices.Equal(got, []int{batchSize, batchSize}) || n != batchSize-1 {
					t.Errorf("%d factories, %d watches, made %v, %d are left", s.started, s.watches, got, n)
				}
			})
		})
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		fd, err := p.Get(t.Context(), Inbound, true)
		if err != nil {
			t.Fatal(err)
		}
		s.set(func() { s.hold = make(chan struct{}) }) // and never closed
		got := make(chan error)
		go func() {
			_, err := p.Get(context.Background(), Outbound, false)
			got <- err
		}()
		synctest.Wait()
		go p.Close()
		if err := <-got; !errors.Is(err, ErrNoSocket) {
			t.Errorf("one that waited: %v", err)
		}
		p.Close()
		started := s.started
		p.Prefill(Inbound, true, true)
		silence(p)
		if err := get(t, p, Datagram); !errors.Is(err, ErrNoSocket) {
			t.Errorf("closed: %v", err)
		}
		synctest.Wait()
		if s.started != started || len(s.failed) > 0 {
			t.Errorf("a closed pool has started %d factories, and says %v", s.started-started, s.failed)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			t.Errorf("a socket that was taken: %v", err)
		}
		_ = unix.Close(fd)
	})
}

// TestPoolHoldsToItsBounds does random things and looks at the pool after each.
func TestPoolHoldsToItsBounds(t *testing.T) {
	for seed := range uint64(20) {
		withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
			random := rand.New(rand.NewPCG(seed, 0))
			for step := range 300 {
				k := kind(random.IntN(kinds))
				var did string
				switch n := random.IntN(100); {
				case n < 70:
					did = "get"
					for range 1 + random.IntN(batchSize) {
						fd, err := p.Get(t.Context(), k.direction(), k.ipv6())
						if err != nil {
							break
						}
						s.set(func() {
							if s.kinds[fd] != k {
								t.Errorf("seed %d, step %d: a socket of kind %d for %d", seed, step, s.kinds[fd], k)
							}
						})
						_ = unix.Close(fd)
					}
				case n < 90:
					did = "sleep"
					time.Sleep(time.Duration(random.Int64N(int64(2 * idleTimeout))))
				case n < 93:
					did = "unanswered"
					p.Unanswered(destination(random.IntN(5)))
				case n < 96:
					did = "change"
					s.set(func() { s.changed = true })
				default:
					did = "prefill"
					p.Prefill(k.direction(), !k.ipv6(), k.ipv6())
				}
				synctest.Wait()
				when := fmt.Sprintf("seed %d, step %d, %s", seed, step, did)
				checkBounds(t, p, when)
				if did == "get" {
					checkFilled(t, p, k, when)
				}
			}
			if s.started == 0 || len(s.failed) > 0 {
				t.Errorf("seed %d: %d factories, %v", seed, s.started, s.failed)
			}
		})
	}
}

// checkBounds looks at a pool whose factory has nothing to do at the moment.
func checkBounds(t *testing.T, p *Pool, when string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range kind(kinds) {
		n := len(p.free[k])
		switch {
		case n > largeBatch/2-1+largeBatch:
			t.Errorf("%s: %d sockets of kind %d", when, n, k)
		case n > 0 && !p.works(k.direction()):
			t.Errorf("%s: %d sockets of kind %d, which is suspended", when, n, k)
		case !p.filling && n > idleSize:
			t.Errorf("%s: %d sockets of kind %d, and no factory", when, n, k)
		}
	}
}

// checkFilled looks whether a factory that runs has made enough of a kind, of which sockets were taken: Get looks how
// many there are before it takes one.
func checkFilled(t *testing.T, p *Pool, k kind, when string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free[k]); p.filling && p.works(k.direction()) && n+1 < max(p.batch[k], batchSize)/2 {
		t.Errorf("%s: %d sockets of kind %d, and the factory waits", when, n, k)
	}
}
