package bypass

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneUnansweredDestinationKeepsTheBypass has others answered meanwhile, however often it is tried.
func TestOneUnansweredDestinationKeepsTheBypass(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		bad, good := destination(0), destination(1)
		for i, minutes := range []float64{0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512} {
			if p.Avoids(bad) {
				t.Fatalf("%d: it is not tried again", i)
			}
			takes(t, p, Outbound, 1)
			p.Unanswered(bad)
			takes(t, p, Outbound, 1)
			p.Answered(good)
			time.Sleep(time.Duration(minutes * float64(time.Minute)))
			if !p.Avoids(bad) || p.Avoids(good) {
				t.Errorf("%d: within %v minutes: avoids it: %v, the other: %v", i, minutes, p.Avoids(bad),
					p.Avoids(good))
			}
			time.Sleep(time.Nanosecond)
		}
		p.Answered(bad)
		p.Unanswered(bad)
		time.Sleep(retryAfter + time.Nanosecond)
		if p.Avoids(bad) {
			t.Error("once answered, it is avoided for as long as before")
		}
	})
}

// TestUnansweredTogetherCountAsOne: a burst to one destination says no more than a connection.
func TestUnansweredTogetherCountAsOne(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		for range 100 {
			p.Unanswered(destination(0))
		}
		takes(t, p, Outbound, 1)
		for i := range 100 { // and to many destinations, no more than to a few
			p.Unanswered(destination(i))
		}
		if err := get(t, p, Outbound); !errors.Is(err, ErrNoSocket) {
			t.Errorf("many in a row: %v", err)
		}
		time.Sleep(retryAfter + time.Nanosecond)
		takes(t, p, Outbound, 1)
	})
}

// TestUnansweredPreparesTheSandboxAgain, but not for each.
func TestUnansweredPreparesTheSandboxAgain(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		time.Sleep(time.Hour)
		takes(t, p, Outbound, 1)
		p.Unanswered(destination(0))
		synctest.Wait()
		takes(t, p, Outbound, 1)
		if s.started != 2 {
			t.Errorf("%d factories, want 2: the container may have removed the rules", s.started)
		}
		for i := range 50 {
			p.Unanswered(destination(i))
			takes(t, p, Outbound, 1)
			p.Answered(destination(1000))
			synctest.Wait()
		}
		if s.started != 2 {
			t.Errorf("%d factories within %v", s.started, retryAfter)
		}
		if n := left(p, Outbound, false); n == 0 {
			t.Error("no sockets are left")
		}
	})
}

// TestUnansweredDestinationsAreBounded: of too many, the one that may try first is forgotten.
func TestUnansweredDestinationsAreBounded(t *testing.T) {
	withPool(t, func(t *testing.T, p *Pool, s *fakeSandbox) {
		for i := range 3 * maxUnansweredDestinations {
			p.Unanswered(destination(i))
			p.Answered(destination(1 << 15))
			time.Sleep(time.Millisecond)
			if n := len(p.unanswered.destinations); n > maxUnansweredDestinations {
				t.Fatalf("%d destinations are remembered", n)
			}
		}
		for i, want := range map[int]bool{0: false, 2*maxUnansweredDestinations - 1: false,
			2 * maxUnansweredDestinations: true, 3*maxUnansweredDestinations - 1: true} {
			if got := p.Avoids(destination(i)); got != want {
				t.Errorf("destination %d is avoided: %v, want %v", i, got, want)
			}
		}
	})
}
