package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/gossip/memnet"
	"github.com/usernet/usernet/overlay/table"
)

// recordLen is the size of an endpoint's record in bytes, with a name, two aliases and ids.
const recordLen = 450

// Parameters say what is simulated.
type Parameters struct {
	Hosts, Endpoints int           // Endpoints on all hosts together
	Span             time.Duration // how long bytes are counted
	Churn            int           // changes in a second, on all hosts together, while churn is measured
	Limit            time.Duration // how long one thing may take, by the simulation's clock
	Delay            time.Duration // how long a datagram is on its way
	Bandwidth        int           // the bytes that a stream carries in a second
}

// host is one member.
type host struct {
	*gossip.Backend
	id  overlay.HostID
	net *memnet.Host
}

// sim is a run.
type sim struct {
	Parameters
	t      *testing.T
	net    memnet.Network
	shared gossip.Shared
	hosts  []*host
	ctx    context.Context // the hosts' Watch
	watch  sync.WaitGroup
	began  time.Time
	real   time.Duration // when it began
}

// Run simulates a cluster, and logs what it measures.
func Run(t *testing.T, p Parameters) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s := &sim{
			Parameters: p, t: t, ctx: ctx, began: time.Now(), real: monotonic(),
			net: memnet.Network{Delay: p.Delay, Rate: p.Bandwidth},
		}
		defer func() {
			cancel()
			s.watch.Wait()
			s.close()
		}()
		s.start()
		s.load()
		s.rest()
		s.changes()
		s.churn()
		s.partition()
	})
}

// monotonic is the machine's clock, of which a bubble has another one.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

// say prints what is known so far: a run takes minutes.
func (s *sim) say(format string, args ...any) {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	s.t.Logf("%8v  %s  [after %v, %v of processors, %d MB at most]", s.since(s.began), fmt.Sprintf(format, args...),
		(monotonic() - s.real).Round(time.Second),
		time.Duration(use.Utime.Nano()+use.Stime.Nano()).Round(time.Second), use.Maxrss>>10)
}

// since is how long ago something was.
func (s *sim) since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

// start starts hosts with the first three as seeds.
func (s *sim) start() {
	n := s.Hosts
	var seeds []string
	for i := range n {
		h := &host{id: overlay.HostID(fmt.Sprintf("%032x", i+1)), net: s.net.Host()}
		if i < 3 {
			seeds = append(seeds, h.net.Addr().String())
		}
		s.hosts = append(s.hosts, h)
	}
	began := time.Now()
	for _, h := range s.hosts {
		var err error
		h.Backend, err = gossip.New(gossip.Config{
			Host:        h.id,
			Incarnation: 1,
			Keys:        [][]byte{[]byte(strings.Repeat("k", 32))},
			Seeds:       seeds,
			Shared:      &s.shared,
			Transport:   h.net,
			Log:         slog.New(slog.DiscardHandler),
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.watch.Go(func() {
			for range h.Watch(s.ctx) { // as a table does
			}
		})
		time.Sleep(time.Second / time.Duration(n)) // hosts do not start at one moment
	}
	s.until("all hosts hear of each other", func(st gossip.Stats) bool { return st.Members == n })
	s.say("%d hosts hear of each other after %v", n, s.since(began))
}

// close ends all hosts at once.
func (s *sim) close() {
	s.net.Cut(func(_, _ netip.AddrPort) bool { return true })
	var all sync.WaitGroup
	for _, h := range s.hosts {
		if h.Backend != nil {
			all.Go(func() { _ = h.Close() })
		}
	}
	all.Wait()
	time.Sleep(time.Minute) // probes come to their end, which memberlist does not wait for
}

func key(i int) string { return fmt.Sprintf("eps/%064x/10.%d.%d.%d", i%16, i>>16&255, i>>8&255, i&255) }

func (s *sim) put(h *host, key string, version uint64) {
	value := []byte(strings.Repeat("x", recordLen))
	copy(value, fmt.Sprint(key, version))
	row := table.Row{Key: key, Value: value, Owner: h.id, Incarnation: 1, Version: version}
	if err := h.Put(context.Background(), row); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for a condition on all hosts.
func (s *sim) until(what string, is func(gossip.Stats) bool) {
	s.t.Helper()
	said, done := monotonic(), 0
	for end := time.Now().Add(s.Limit); ; time.Sleep(10 * time.Millisecond) {
		for done < len(s.hosts) && is(s.hosts[done].Stats()) {
			done++ // the next one is looked at first the next time
		}
		if done == len(s.hosts) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: not on all hosts after %v", what, s.Limit)
		}
		if now := monotonic(); now-said >= 30*time.Second {
			said = now
			s.say("%s: on the first %d hosts", what, done)
		}
	}
}

// same waits until all hosts have the same rows, at least so many.
func (s *sim) same(rows int) {
	var first gossip.Stats
	s.until("all hosts have the same rows", func(st gossip.Stats) bool {
		first = s.hosts[0].Stats() // it may still get some
		return st.Rows >= rows && st.Digest == first.Digest
	})
}

// load has all hosts write their endpoints at one moment.
func (s *sim) load() {
	n := s.Endpoints
	before := heap()
	began := time.Now()
	count := s.count()
	for i := range n {
		s.put(s.hosts[i%len(s.hosts)], key(i), 1)
	}
	s.same(n)
	took := time.Since(began)
	sent := count()
	s.say("%d endpoints are everywhere after %v: a host has sent %.1f MB in datagrams, %.1f MB in streams",
		n, took.Round(100*time.Millisecond), sent.datagrams*took.Seconds()/1e6, sent.streams*took.Seconds()/1e6)
	s.say("memory: %.1f bytes of index for an endpoint on a host",
		(float64(heap())-float64(before))/float64(n)/float64(len(s.hosts)))
}

// rest measures once broadcasts and comparisons have come to their end.
func (s *sim) rest() {
	time.Sleep(time.Minute)
	count := s.count()
	time.Sleep(s.Span)
	s.say("at rest a host sends %v", count())
}

// changes has hosts change a row, and says how long it is until all have it.
func (s *sim) changes() {
	var took []time.Duration
	for i := range 20 {
		h := s.hosts[rand.N(len(s.hosts))]
		began := time.Now()
		s.put(h, overlay.HostKey(h.id), uint64(1+i))
		want := h.Stats().Digest
		s.until("a change", func(st gossip.Stats) bool { return st.Digest == want })
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	s.say("a change is known by all after %v (median of %d), %v at most",
		took[len(took)/2].Round(10*time.Millisecond), len(took), took[len(took)-1].Round(10*time.Millisecond))
}

// churn has hosts change endpoints' rows meanwhile.
func (s *sim) churn() {
	count := s.count()
	ticks := time.NewTicker(time.Second / time.Duration(s.Churn))
	defer ticks.Stop()
	version := uint64(2)
	for end := time.Now().Add(s.Span); time.Now().Before(end); version++ {
		<-ticks.C
		i := rand.N(s.Endpoints)
		s.put(s.hosts[i%len(s.hosts)], key(i), version)
	}
	s.say("with %d changes/s a host sends %v", s.Churn, count())
	began := time.Now()
	s.same(0)
	s.say("all hosts have the same rows %v after the last change", s.since(began))
}

// traffic is what a host sends in a second, on average, without headers of UDP, TCP and IP.
type traffic struct{ datagrams, streams, seed float64 }

func (t traffic) String() string {
	return fmt.Sprintf("%.0f bytes/s, %.0f in datagrams and %.0f in streams; a seed %.0f",
		t.datagrams+t.streams, t.datagrams, t.streams, t.seed)
}

// count counts traffic from now on until it is asked for.
func (s *sim) count() func() traffic {
	sum := func(hosts []*host) (datagrams, streams float64) {
		for _, h := range hosts {
			datagrams += float64(h.net.Datagrams.Load())
			streams += float64(h.net.Streams.Load())
		}
		return datagrams / float64(len(hosts)), streams / float64(len(hosts))
	}
	began, seeds := time.Now(), s.hosts[:min(3, len(s.hosts))]
	d0, s0 := sum(s.hosts)
	seedD0, seedS0 := sum(seeds)
	return func() traffic {
		d, st := sum(s.hosts)
		seedD, seedS := sum(seeds)
		per := time.Since(began).Seconds()
		return traffic{(d - d0) / per, (st - s0) / per, (seedD + seedS - seedD0 - seedS0) / per}
	}
}

// partition cuts the hosts into halves until each holds the other for dead, changes rows in both, and joins them again.
func (s *sim) partition() {
	half := map[netip.AddrPort]bool{}
	for i, h := range s.hosts {
		half[h.net.Addr()] = i%2 == 0 // seeds in both
	}
	began := time.Now()
	s.net.Cut(func(from, to netip.AddrPort) bool { return half[from] != half[to] })
	few := func(st gossip.Stats) bool { return st.Members <= (len(s.hosts)+1)/2 }
	s.until("each half holds the other for dead", few)
	s.say("each half holds the other for dead after %v", s.since(began))
	for _, h := range s.hosts {
		s.put(h, overlay.HostKey(h.id), 100)
	}
	time.Sleep(time.Minute)
	s.net.Cut(nil)
	began = time.Now()
	count := s.count()
	s.until("all hosts hear of each other again", func(st gossip.Stats) bool { return st.Members == len(s.hosts) })
	s.say("merged, all hosts hear of each other after %v", s.since(began))
	s.same(0)
	s.say("and have the same rows after %v; each host had changed one; a host has sent %v", s.since(began), count())
}

// heap is the memory in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
