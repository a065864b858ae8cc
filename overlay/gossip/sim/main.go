// Command sim runs many hosts of a cluster without a store in one process, over a network in memory (package memnet),
// with the settings that daemons have, and measures what gossip costs and how long it takes (docs/overlay.md has the
// results). `make sim`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/gossip/memnet"
	"github.com/usernet/usernet/overlay/table"
)

// recordLen is the size of an endpoint's record in bytes, with a name, two aliases and ids.
const recordLen = 450

// host is one member.
type host struct {
	*gossip.Backend
	id  overlay.HostID
	net *memnet.Host
}

// sim is a run.
type sim struct {
	net   memnet.Network
	hosts []*host
	limit time.Duration // for each thing that is waited for
}

func main() {
	hosts := flag.Int("hosts", 1000, "how many hosts")
	endpoints := flag.Int("endpoints", 100_000, "how many endpoints, on all hosts together")
	span := flag.Duration("span", 30*time.Second, "how long bytes are counted")
	rate := flag.Int("churn", 20, "changes in a second, on all hosts together, while churn is measured")
	limit := flag.Duration("limit", 15*time.Minute, "how long one thing may take")
	flag.Parse()
	s := &sim{limit: *limit}
	if err := s.run(*hosts, *endpoints, *rate, *span); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

func (s *sim) run(hosts, endpoints, rate int, span time.Duration) error {
	began := time.Now()
	if err := s.start(hosts); err != nil {
		return err
	}
	all := func(st gossip.Stats) bool { return st.Members == hosts }
	if err := s.until("all hosts hear of each other", all); err != nil {
		return err
	}
	say("%d hosts hear of each other after %v", hosts, time.Since(began).Round(time.Second))
	before := heap()

	began = time.Now()
	for i := range endpoints {
		key := fmt.Sprintf("eps/%064x/10.%d.%d.%d", i%16, i>>16&255, i>>8&255, i&255)
		if err := s.put(s.hosts[i%hosts], key, 1); err != nil {
			return err
		}
	}
	if err := s.same(endpoints); err != nil {
		return err
	}
	say("%d endpoints are everywhere after %v", endpoints, time.Since(began).Round(time.Second))
	say("memory: %d bytes for an endpoint on a host", (heap()-before)/uint64(endpoints*hosts))

	time.Sleep(2 * span) // broadcasts and comparisons come to their end
	d, st := s.count(span)
	say("at rest a host sends %d bytes/s: %d in datagrams, %d in streams", d+st, d, st)

	var took []time.Duration
	for i := range 20 {
		t, err := s.change(i)
		if err != nil {
			return err
		}
		took = append(took, t)
	}
	slices.Sort(took)
	say("a change is known by all after %v (median of 20), %v at most",
		took[10].Round(10*time.Millisecond), took[19].Round(10*time.Millisecond))

	ctx, cancel := context.WithCancel(context.Background())
	var churn sync.WaitGroup
	churn.Go(func() { s.churn(ctx, rate, endpoints) })
	cd, cs := s.count(span)
	cancel()
	churn.Wait()
	say("with %d changes/s a host sends %d bytes/s: %d in datagrams, %d in streams", rate, cd+cs, cd, cs)
	return s.partition()
}

// start starts hosts with the first three as seeds.
func (s *sim) start(n int) error {
	var seeds []string
	for i := range n {
		h := &host{id: overlay.HostID(fmt.Sprintf("%032x", i+1)), net: s.net.Host()}
		if i < 3 {
			seeds = append(seeds, h.net.Addr().String())
		}
		s.hosts = append(s.hosts, h)
	}
	key := []byte(strings.Repeat("k", 32))
	for _, h := range s.hosts {
		var err error
		h.Backend, err = gossip.New(gossip.Config{
			Host:        h.id,
			Incarnation: 1,
			Keys:        [][]byte{key},
			Seeds:       seeds,
			Transport:   h.net,
			Log:         slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond) // hosts do not start at one moment
	}
	return nil
}

func (s *sim) put(h *host, key string, version uint64) error {
	value := []byte(strings.Repeat("x", recordLen))
	copy(value, fmt.Sprint(key, version))
	return h.Put(context.Background(), table.Row{Key: key, Value: value, Owner: h.id, Incarnation: 1, Version: version})
}

// until waits for a condition on all hosts.
func (s *sim) until(what string, is func(gossip.Stats) bool) error {
	said := time.Now()
	for end := time.Now().Add(s.limit); ; time.Sleep(5 * time.Millisecond) {
		missing := 0
		for _, h := range s.hosts {
			if !is(h.Stats()) {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not on %d of %d hosts after %v", what, missing, len(s.hosts), s.limit)
		}
		if time.Since(said) > time.Minute {
			said = time.Now()
			say("%s: not yet on %d hosts", what, missing)
		}
	}
}

// same waits until all hosts have the same rows, at least so many.
func (s *sim) same(rows int) error {
	var first gossip.Stats
	return s.until("all hosts have the same rows", func(st gossip.Stats) bool {
		first = s.hosts[0].Stats()
		return st.Rows >= rows && st.Digest == first.Digest
	})
}

// change has a host change a row, and says how long it is until all have it.
func (s *sim) change(i int) (time.Duration, error) {
	h := s.hosts[rand.N(len(s.hosts))]
	began := time.Now()
	if err := s.put(h, overlay.HostKey(h.id), uint64(1+i)); err != nil {
		return 0, err
	}
	want := h.Stats().Digest
	err := s.until("a change", func(st gossip.Stats) bool { return st.Digest == want })
	return time.Since(began), err
}

// churn changes endpoints' rows until ctx is done.
func (s *sim) churn(ctx context.Context, rate, endpoints int) {
	ticks := time.NewTicker(time.Second / time.Duration(rate))
	defer ticks.Stop()
	for version := uint64(2); ; version++ {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		i := rand.N(endpoints)
		key := fmt.Sprintf("eps/%064x/10.%d.%d.%d", i%16, i>>16&255, i>>8&255, i&255)
		if err := s.put(s.hosts[i%len(s.hosts)], key, version); err != nil {
			say("churn: %v", err)
		}
	}
}

// count is what a host sends in a second, on average.
func (s *sim) count(span time.Duration) (datagrams, streams int64) {
	began := time.Now()
	for _, h := range s.hosts {
		datagrams -= h.net.Datagrams.Load()
		streams -= h.net.Streams.Load()
	}
	time.Sleep(span)
	for _, h := range s.hosts {
		datagrams += h.net.Datagrams.Load()
		streams += h.net.Streams.Load()
	}
	per := float64(len(s.hosts)) * time.Since(began).Seconds()
	return int64(float64(datagrams) / per), int64(float64(streams) / per)
}

// partition cuts the hosts into halves until each holds the other for dead, changes rows in both, and joins them again.
func (s *sim) partition() error {
	half := map[netip.AddrPort]bool{}
	for _, h := range s.hosts[:len(s.hosts)/2] {
		half[h.net.Addr()] = true
	}
	began := time.Now()
	s.net.Cut(func(from, to netip.AddrPort) bool { return half[from] != half[to] })
	few := func(st gossip.Stats) bool { return st.Members <= (len(s.hosts)+1)/2 }
	if err := s.until("each half holds the other for dead", few); err != nil {
		return err
	}
	say("each half holds the other for dead after %v", time.Since(began).Round(100*time.Millisecond))
	for _, h := range s.hosts {
		if err := s.put(h, overlay.HostKey(h.id), 100); err != nil {
			return err
		}
	}
	s.net.Cut(nil)
	began = time.Now()
	all := func(st gossip.Stats) bool { return st.Members == len(s.hosts) }
	if err := s.until("all hosts hear of each other again", all); err != nil {
		return err
	}
	say("merged, all hosts hear of each other after %v", time.Since(began).Round(100*time.Millisecond))
	if err := s.same(0); err != nil {
		return err
	}
	say("and have the same rows after %v; each host had changed one", time.Since(began).Round(100*time.Millisecond))
	return nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
