package vswitch

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/leak"
)

// TestLimiter has frames of a super-frame's size and small ones wait so that the rate and one burst are never
// exceeded, but for one frame.
func TestLimiter(t *testing.T) {
	for _, size := range []int{60, 1514, 65000} {
		now := time.Unix(1000, 0)
		start := now
		l := newLimiter(Limit{PerSecond: 1e6, Burst: 10000}, now)
		sent := 0
		for now.Sub(start) < 10*time.Second {
			if wait := l.wait(now); wait > 0 {
				now = now.Add(wait)
				continue
			}
			l.take(size)
			sent += size
			most := 1e6*now.Sub(start).Seconds() + 10000 + float64(size)
			if float64(sent) > most {
				t.Fatalf("frames of %d: %d bytes after %s, at most %.0f", size, sent, now.Sub(start), most)
			}
		}
		if sent < 99*1e5 {
			t.Errorf("frames of %d: %d bytes in 10 s of 1 MB/s", size, sent)
		}
	}
	l := newLimiter(Limit{PerSecond: 1000, Burst: 500}, time.Unix(1000, 0))
	l.take(500)
	if l.wait(time.Unix(5000, 0)) != 0 || l.left != 500 {
		t.Errorf("more than the burst is saved: %f", l.left)
	}
}

// slowSink counts what is written to it.
type slowSink struct {
	sync.Mutex
	bytes int
	got   chan struct{}
}

func (s *slowSink) WriteFrame(f *Frame) error {
	s.Lock()
	defer s.Unlock()
	s.bytes += f.Len()
	select {
	case s.got <- struct{}{}:
	default:
	}
	return nil
}

// TestLimitedPort floods a port that has a bound: in the time that it takes, no more goes than the bound lets, what
// its queue has no room for counts as dropped, and closing it in the midst leaves nothing.
func TestLimitedPort(t *testing.T) {
	goroutines := leak.Goroutines()
	sw := New(Config{})
	to := &slowSink{got: make(chan struct{}, 1)}
	limit := Limit{PerSecond: 1e6, Burst: 20000}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	start := time.Now() // before the bucket has its first tokens
	p, err := sw.Connect(PortConfig{Name: "slow", MAC: mac, To: limit}, to)
	if err != nil {
		t.Fatal(err)
	}
	from, err := sw.Connect(PortConfig{Name: "gateway", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Role: Gateway},
		&slowSink{})
	if err != nil {
		t.Fatal(err)
	}
	var f Frame
	for range 2000 { // 3 MB
		f.Fill(1500)
		copy(f.Ethernet(), mac)
		copy(f.Ethernet()[6:], []byte{2, 0, 0, 0, 0, 2})
		from.Receive(&f)
	}
	deadline := time.After(30 * time.Second)
	for {
		to.Lock()
		sent := to.bytes
		to.Unlock()
		most := limit.PerSecond*time.Since(start).Seconds() + limit.Burst + 1514
		if float64(sent) > most {
			t.Fatalf("%d bytes, at most %.0f", sent, most)
		}
		if sent > 60000 {
			break
		}
		select {
		case <-to.got:
		case <-deadline:
			t.Fatalf("%d bytes in 30 s", sent)
		}
	}
	if s := p.Stats(); s.Drops[DropDevice] == 0 {
		t.Errorf("a queue without a bound: %+v", s)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.dev.WriteFrame(&f); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	f.Release()
	goroutines.NoneLeft(t)
}
