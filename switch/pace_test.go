package vswitch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/usernet/usernet/internal/packet"
)

// paced is two ports with readers, and a third as the gateway.
func paced(t *testing.T) (a, b *Pacer, all *activity, frames func(from, to byte) *Frame) {
	t.Helper()
	sw, all := New(Config{}), &activity{}
	pacer := func(cfg PortConfig) *Pacer {
		p, err := sw.Connect(cfg, sink{})
		if err != nil {
			t.Fatal(err)
		}
		c := p.Pacer()
		c.all, c.rate = all, paceRate
		return c
	}
	a, b = pacer(guarded(2)), pacer(guarded(3))
	pacer(PortConfig{MAC: mac(1), Role: Gateway})
	return a, b, all, func(from, to byte) *Frame {
		f := frame(mac(to), mac(from), EtherTypeIPv4, ipPacket(ip4(from), ip4(to), packet.ProtoTCP, tcp(0, 1, nil)))
		f.MorePending = true
		return f
	}
}

// take has a reader take frames of a size in one round, and returns what settle says then.
func (c *Pacer) take(now time.Time, n, size int) time.Duration {
	for range n {
		c.Take(size)
	}
	c.left -= float64(c.taken)
	c.taken = 0
	return c.settle(now)
}

func TestAReaderThatIsAloneIsNotPaced(t *testing.T) {
	a, _, _, _ := paced(t)
	now := time.Now()
	for i := range 1000 {
		if pause := a.take(now.Add(time.Duration(i)*time.Microsecond), 1000, 60); pause != 0 {
			t.Fatalf("pauses for %v", pause)
		}
	}
}

// TestOthersPaceAReader has a reader take all it can for a second while another has a frame now and then.
func TestOthersPaceAReader(t *testing.T) {
	for _, test := range []struct {
		size int
		want int // frames a second
	}{{60, 50_000}, {1514, 150_000}, {65_000, 75_000}} {
		a, _, all, _ := paced(t)
		start := time.Now()
		taken := 0
		for now := start; now.Before(start.Add(time.Second)); now = now.Add(time.Microsecond) {
			if taken%640 == 0 {
				all.rounds.Add(1)
			}
			now = now.Add(a.take(now, 64, test.size))
			taken += 64
		}
		if taken < test.want*9/10 || taken > test.want*12/10 {
			t.Errorf("%d frames of %d bytes in a second, want some %d", taken, test.size, test.want)
		}
	}
}

// TestAFrameCountsByItsTime has a reader flood whose frames take some time each, while another has a frame now and
// then. The clock is the bubble's.
func TestAFrameCountsByItsTime(t *testing.T) {
	for _, test := range []struct {
		size    int
		each    time.Duration
		percent int // of a processor
	}{
		{60, 500 * time.Nanosecond, 3}, // 50,000 a second at most
		{60, 4 * time.Microsecond, 10},
		{60, 14 * time.Microsecond, 10},
		{1514, 14 * time.Microsecond, 10},
		{65_000, 4 * time.Microsecond, 30}, // by its size
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _, all, _ := paced(t)
			f := &Frame{}
			start, busy := time.Now(), time.Duration(0)
			for time.Since(start) < 2*time.Second {
				all.rounds.Add(1)
				for range 64 {
					a.Take(test.size)
				}
				time.Sleep(64 * test.each)
				if time.Since(start) > time.Second {
					busy += 64 * test.each
				}
				if pause := a.Round(f); pause > 0 {
					a.Pause(pause)
				}
			}
			if got := int(busy * 100 / time.Second); got < test.percent*8/10 || got > test.percent*12/10+1 {
				t.Errorf("frames of %d bytes that take %v have %d %% of a processor, want %d",
					test.size, test.each, got, test.percent)
			}
		})
	}
}

// TestOnlyTurnsOfFramesAreMeasured: neither a few frames nor super-frames tell what a frame takes, and a reader that
// waited long for a processor is not held for long after.
func TestOnlyTurnsOfFramesAreMeasured(t *testing.T) {
	a, _, _, _ := paced(t)
	turn := func(n, size int, took time.Duration) {
		a.resumed, a.frames = time.Now(), 0
		end := a.resumed.Add(took)
		for range n {
			a.Take(size)
		}
		if !a.resumed.IsZero() {
			a.measure(end)
		}
	}
	turn(measuredFrames-1, 60, time.Second)
	turn(measuredFrames, 65_000, time.Second)
	if a.average != 0 || a.small != smallUnits || a.other != 1 {
		t.Errorf("a frame counts %d and %d units", a.small, a.other)
	}
	turn(measuredFrames, 60, time.Hour)
	if a.small != mostUnits {
		t.Errorf("after an hour's turn a frame counts %d units, want %d", a.small, mostUnits)
	}
	for range 4 * averagedTurns {
		turn(measuredFrames, 60, measuredFrames*unitTime)
	}
	if a.small != smallUnits || a.other > 2 {
		t.Errorf("later a frame counts %d and %d units", a.small, a.other)
	}
}

// TestWhatIsNotTakenIsKeptForAWhile: a burst after silence is taken at once.
func TestWhatIsNotTakenIsKeptForAWhile(t *testing.T) {
	a, _, all, _ := paced(t)
	now := time.Now()
	for a.take(now, 64, 60) <= measuringPause {
		all.rounds.Add(1)
	}
	now = now.Add(time.Hour)
	burst := 0
	for a.take(now, 10, 60) <= measuringPause {
		all.rounds.Add(1)
		if burst += 10; burst > 5000 {
			t.Fatal("a burst without end")
		}
	}
	if want := int(paceBurst.Seconds() * paceRate / smallUnits); burst < want-64 || burst > want+10 {
		t.Errorf("%d frames at once after an hour, want some %d", burst, want)
	}
}

func TestOthersCountForAWhile(t *testing.T) {
	a, _, all, _ := paced(t)
	now := time.Now()
	a.take(now, 64, 60)
	if a.Contended() {
		t.Error("contended by nobody")
	}
	all.rounds.Add(1)
	if pause := a.take(now, 6400, 60); pause == 0 || !a.Contended() {
		t.Errorf("a pause of %v while another has frames, contended: %v", pause, a.Contended())
	}
	if pause := a.take(now.Add(contention), 6400, 60); pause == 0 || !a.Contended() {
		t.Errorf("a pause of %v %v after another had frames, contended: %v", pause, contention, a.Contended())
	}
	if pause := a.take(now.Add(contention+time.Millisecond), 6400, 60); pause != 0 || a.Contended() {
		t.Errorf("a pause of %v when others have had none for long, contended: %v", pause, a.Contended())
	}
}

// TestPeersDoNotPaceEachOther has two ports send to each other: neither waits for the other's frames. What either sends
// to others as well in the same round counts.
func TestPeersDoNotPaceEachOther(t *testing.T) {
	for _, test := range []struct {
		what  string
		to    []byte
		paced bool
	}{
		{"replies", []byte{2, 2, 2}, false},
		{"nothing", nil, false},
		{"frames to the gateway", []byte{1}, true},
		{"replies and others", []byte{2, 1, 2}, true},
	} {
		a, b, _, frames := paced(t)
		now := time.Now()
		a.take(now, 6400, 60) // looks
		f := &Frame{MorePending: true}
		for _, to := range test.to {
			g := frames(3, to)
			f.Header, f.Payload = g.Header, g.Payload
			b.port.Receive(f)
			b.Take(60)
		}
		b.Round(f)
		if f.to != nil || f.several {
			t.Errorf("%s: a round leaves something in the frame", test.what)
		}
		if pause := a.take(now, 6400, 60); pause > 0 != test.paced {
			t.Errorf("%s: a pause of %v", test.what, pause)
		}
	}
}

// TestRoundsCountOnceForEachLook: what changes for nobody who looks is not written either.
func TestRoundsCountOnceForEachLook(t *testing.T) {
	a, b, all, _ := paced(t)
	b.left = 1 << 20 // it never looks itself
	f := &Frame{MorePending: true}
	for look := range uint64(3) {
		for range 10 {
			b.Take(60)
			b.Round(f)
		}
		if n := all.rounds.Load(); n != look {
			t.Errorf("%d rounds count after %d looks", n, look)
		}
		a.take(time.Now(), 1, 60)
	}
}

func TestRoundsAllocateNothing(t *testing.T) {
	a, _, _, frames := paced(t)
	f := frames(2, 3)
	if n := testing.AllocsPerRun(1000, func() {
		a.port.Receive(f)
		a.Take(64)
		a.Round(f)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRound(b *testing.B) {
	sw := New(Config{})
	p, err := sw.Connect(guarded(2), sink{})
	if err != nil {
		b.Fatal(err)
	}
	c, f := p.Pacer(), &Frame{}
	for b.Loop() {
		c.Take(64)
		c.Round(f)
	}
}
