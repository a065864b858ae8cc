package fabric

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// simulatedPath is a path whose MTU, loss and delay are known, on a clock of the test's own.
type simulatedPath struct {
	search mtuSearch
	rand   *rand.Rand
	now    time.Time
	mtu    int // what is known of it

	real   int // what gets through
	route  int // what leaves
	loss   float64
	rtt    time.Duration
	jitter time.Duration
	twice  bool // answers come twice, the second time much later

	coming []simulatedAnswer
	fell   int // how often the known MTU fell
	probes int
	bytes  int
	again  time.Time
}

type simulatedAnswer struct {
	at    time.Time
	token uint64
	size  int
}

// step lets time pass until the next thing happens that the fabric would do, as searchMTU does it.
func (p *simulatedPath) step(until time.Time) {
	slices.SortFunc(p.coming, func(a, b simulatedAnswer) int { return a.at.Compare(b.at) })
	next := p.now.Truncate(tick).Add(tick)
	if !p.again.IsZero() && p.again.Before(next) {
		next = p.again
	}
	if len(p.coming) > 0 && !p.coming[0].at.After(next) {
		a := p.coming[0]
		p.coming = p.coming[1:]
		p.now = a.at
		p.mtu, _ = p.search.answer(a.token, a.size, p.mtu)
		return
	}
	if next.After(until) {
		p.now = until
		return
	}
	p.now = next
	within := min(max(3*p.rtt, answerLeast), answerWithin)
	mtu, doubt := p.search.judge(p.now, p.mtu, minMTU4, within)
	if mtu < p.mtu {
		p.fell++
	}
	p.mtu = mtu
	if r := p.search.plan(p.now, mtu, minMTU4, doubt, true, within, func() int { return p.route }); r != nil {
		for _, size := range r.sizes {
			p.probe(r.token, size)
		}
	}
	p.again = time.Time{}
	if doubt || p.search.awaits(p.now, p.mtu, within) {
		p.again = p.now.Add(max(within/2, answerLeast/2))
	}
}

func (p *simulatedPath) probe(token uint64, size int) {
	p.probes++
	p.bytes += max(size, 128)
	if size > p.real || p.rand.Float64() < p.loss || p.rand.Float64() < p.loss {
		return
	}
	a := simulatedAnswer{p.now.Add(p.rtt), token, size}
	if p.jitter > 0 {
		a.at = a.at.Add(time.Duration(p.rand.Int64N(int64(p.jitter))))
	}
	p.coming = append(p.coming, a)
	if p.twice {
		a.at = a.at.Add(time.Duration(p.rand.Int64N(int64(10 * time.Second))))
		p.coming = append(p.coming, a)
	}
}

// run lets time pass.
func (p *simulatedPath) run(d time.Duration) {
	for until := p.now.Add(d); p.now.Before(until); {
		p.step(until)
	}
}

// until lets time pass until ok, and returns how long that took; at most a minute.
func (p *simulatedPath) until(ok func() bool) time.Duration {
	began := p.now
	for end := began.Add(time.Minute); !ok() && p.now.Before(end); {
		p.step(end)
	}
	return p.now.Sub(began)
}

func newSimulatedPath(seed uint64) *simulatedPath {
	return &simulatedPath{rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), rtt: 2 * time.Millisecond,
		mtu: 1500, real: 1500, route: 1500}
}

// TestAPathMTUThatFallsIsFoundInSeconds lets the MTU of a path fall at any moment, to any size, on good and bad paths.
func TestAPathMTUThatFallsIsFoundInSeconds(t *testing.T) {
	for _, c := range []struct {
		rtt, jitter time.Duration
		loss        float64
		twice       bool
		most        time.Duration // of all runs
		usual       time.Duration // of nine in ten
	}{
		{rtt: time.Millisecond, most: 2 * time.Second, usual: 2 * time.Second},
		{rtt: 100 * time.Millisecond, jitter: 50 * time.Millisecond, most: 3 * time.Second, usual: 3 * time.Second},
		{rtt: 600 * time.Millisecond, most: 5 * time.Second, usual: 5 * time.Second},
		{rtt: time.Millisecond, jitter: 800 * time.Millisecond, twice: true, most: 4 * time.Second,
			usual: 3 * time.Second},
		{rtt: 10 * time.Millisecond, loss: 0.05, most: 5 * time.Second, usual: 3 * time.Second},
		{rtt: 10 * time.Millisecond, jitter: 20 * time.Millisecond, loss: 0.2, twice: true, most: 10 * time.Second,
			usual: 4 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v to %v, loss %v", c.rtt, c.rtt+c.jitter, c.loss), func(t *testing.T) {
			var took []time.Duration
			for seed := range uint64(200) {
				p := newSimulatedPath(seed)
				p.rtt, p.jitter, p.loss, p.twice = c.rtt, c.jitter, c.loss, c.twice
				p.run(40*time.Second + time.Duration(p.rand.Int64N(int64(40*time.Second))))
				if p.mtu != 1500 && c.loss == 0 {
					t.Fatalf("the path's MTU is 1500, and %d is known", p.mtu)
				}
				p.real = 576 + p.rand.IntN(1500-576)
				took = append(took, p.until(func() bool { return p.mtu <= p.real }))
				if p.run(time.Minute); c.loss == 0 && (p.mtu > p.real || p.mtu < leastTried(p.real)) {
					t.Fatalf("the path's MTU is %d, and %d is known after a minute", p.real, p.mtu)
				}
				p.real = 1500
				if d := p.until(func() bool { return p.mtu == 1500 }); d > raiseEvery+2*tick && c.loss == 0 {
					t.Errorf("a path's MTU that rose is known after %v", d)
				}
			}
			slices.Sort(took)
			most, usual := took[len(took)-1], took[len(took)*9/10]
			t.Logf("median %v, nine in ten %v, at most %v", took[len(took)/2], usual, most)
			if most > c.most || usual > c.usual {
				t.Errorf("found after %v at most, %v usually, want %v and %v", most, usual, c.most, c.usual)
			}
		})
	}
}

// leastTried is the largest of the usual sizes that gets through.
func leastTried(mtu int) int {
	best := minMTU4
	for _, size := range probeSizes {
		if size <= mtu {
			best = size
		}
	}
	return best
}

// TestAPathMTUDoesNotFallWithoutCause: paths that lose, delay and repeat what is sent have the MTU that they had.
func TestAPathMTUDoesNotFallWithoutCause(t *testing.T) {
	for _, c := range []struct {
		rtt, jitter time.Duration
		loss        float64
		falls       float64       // in an hour, on average
		tiny        time.Duration // for which less than 1400 may be known in an hour, on average
	}{
		{rtt: time.Millisecond},
		{rtt: 500 * time.Millisecond, jitter: 400 * time.Millisecond},
		{rtt: 3 * time.Second, jitter: time.Second}, // answers are late by rounds
		{rtt: 10 * time.Millisecond, jitter: 300 * time.Millisecond, loss: 0.01, falls: 0.1},
		{rtt: 10 * time.Millisecond, loss: 0.05, falls: 0.1},
		{rtt: 10 * time.Millisecond, loss: 0.2, falls: 10, tiny: 10 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v to %v, loss %v", c.rtt, c.rtt+c.jitter, c.loss), func(t *testing.T) {
			const hours = 10
			falls, smaller, tiny := 0, time.Duration(0), time.Duration(0)
			for seed := range uint64(hours) {
				p := newSimulatedPath(seed)
				p.rtt, p.jitter, p.loss, p.twice = c.rtt, c.jitter, c.loss, true
				for range 3600 {
					p.run(time.Second)
					if p.mtu < 1400 {
						tiny += time.Second
					}
					if p.mtu < 1500 {
						smaller += time.Second
					}
				}
				falls += p.fell
			}
			t.Logf("%d falls in %d hours, for %v together, below 1400 for %v", falls, hours, smaller, tiny)
			if float64(falls) > c.falls*hours || tiny > c.tiny*hours {
				t.Errorf("in %d hours the path's MTU fell %d times, below 1400 for %v; want %v and %v an hour at most", hours,
					falls, tiny, c.falls, c.tiny)
			}
		})
	}
}
