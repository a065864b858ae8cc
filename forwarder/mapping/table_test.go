package mapping

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// fakeMapping is a mapping of nothing.
type fakeMapping struct {
	Mapping
	mu    sync.Mutex
	ended int
}

func (m *fakeMapping) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended++
}

func (m *fakeMapping) closed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// limits count, and let each container have a number.
type limits struct {
	most int
	mu   sync.Mutex
	have map[netip.Addr]int
}

func (l *limits) Acquire(owner netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have[owner] >= l.most {
		return false
	}
	l.have[owner]++
	return true
}

func (l *limits) Release(owner netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have[owner]--; l.have[owner] == 0 {
		delete(l.have, owner)
	}
	if l.have[owner] < 0 {
		panic("released more than was acquired")
	}
}

var one, two = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

func newTable(t *testing.T, most int) (*Table[int, *fakeMapping], *limits) {
	t.Helper()
	l := &limits{most: most, have: map[netip.Addr]int{}}
	table := New[int, *fakeMapping](Config{Limiter: l, Lifetimes: UDP})
	t.Cleanup(table.Close)
	return table, l
}

func open() (*fakeMapping, error) { return new(fakeMapping), nil }

// newMapping makes a mapping that is not there yet.
func newMapping(t *testing.T, table *Table[int, *fakeMapping], k int, owner netip.Addr) *fakeMapping {
	t.Helper()
	m, made, err := table.Make(k, owner, open)
	if err != nil || !made || table.Get(k) != m {
		t.Fatalf("mapping %d of %s: %v, %v", k, owner, made, err)
	}
	return m
}

func TestLifetimes(t *testing.T) {
	for _, test := range []struct {
		what            string
		of              Lifetimes
		answered, brief bool
		want            time.Duration
	}{
		{"nobody has answered", UDP, false, false, 30 * time.Second},
		{"answered", UDP, true, false, 5 * time.Minute},
		{"a question for a name", UDP, false, true, 20 * time.Second},
		{"an answer to it", UDP, true, true, 20 * time.Second},
		{"a ping", Ping, false, false, time.Minute},
		{"an answered ping", Ping, true, false, time.Minute},
	} {
		l := &limits{most: 10, have: map[netip.Addr]int{}}
		table := New[int, *fakeMapping](Config{Limiter: l, Lifetimes: test.of})
		m := newMapping(t, table, 1, one)
		if test.answered {
			m.Answer()
		}
		m.SetBrief(test.brief)
		m.last.Store(int64(time.Hour))
		if len(table.queues.expired(test.of, int64(time.Hour+test.want))) != 0 {
			t.Errorf("%s: it is kept for less than %v", test.what, test.want)
		}
		if len(table.queues.expired(test.of, int64(time.Hour+test.want)+1)) != 1 {
			t.Errorf("%s: it is kept for more than %v", test.what, test.want)
		}
		table.Close()
		if m.closed() != 1 || len(l.have) != 0 {
			t.Errorf("%s: closed %d times, and %v are counted", test.what, m.closed(), l.have)
		}
	}
}

func TestExpiredMappingsEnd(t *testing.T) {
	table, l := newTable(t, 100)
	var all []*fakeMapping
	for k := range 10 {
		all = append(all, newMapping(t, table, k, one))
	}
	table.sweep()
	if table.Len() != 10 || table.sweeping == nil {
		t.Errorf("%d of 10 are left before their time", table.Len())
	}
	for _, m := range all[:5] {
		m.last.Store(clock() - int64(time.Hour))
		if m.Idle() < time.Hour {
			t.Errorf("a mapping that was not used for an hour is idle for %v", m.Idle())
		}
	}
	all[0].Used()
	table.sweep()
	if table.Len() != 6 || table.Get(1) != nil || table.Get(0) != all[0] || l.have[one] != 6 {
		t.Errorf("%d are left, and %v are counted", table.Len(), l.have)
	}
	table.EndAll(func(*fakeMapping) bool { return true })
	table.sweep()
	if table.sweeping != nil {
		t.Error("a timer runs for an empty table")
	}
	for i, m := range all {
		if m.closed() != 1 {
			t.Errorf("mapping %d was closed %d times", i, m.closed())
		}
	}
}

// TestNewcomersArePreferred: a full table gives up what its container needs least, and nothing of another container's.
func TestNewcomersArePreferred(t *testing.T) {
	table, l := newTable(t, 3)
	neighbour := newMapping(t, table, 100, two)
	answered := newMapping(t, table, 0, one)
	answered.Answer()
	for k := 1; k < 20; k++ {
		newMapping(t, table, k, one)
	}
	if table.Len() != 4 || l.have[one] != 3 || answered.closed() != 0 || neighbour.closed() != 0 {
		t.Errorf("%d are left, %v are counted; the answered one was closed %d times", table.Len(), l.have, answered.closed())
	}
	if table.GiveUp(netip.MustParseAddr("10.0.0.9")) {
		t.Error("a container gives up what it has not")
	}
	l.most = 0
	if m, made, err := table.Make(50, netip.MustParseAddr("10.0.0.9"), open); !errors.Is(err, ErrLimit) || m != nil ||
		made {
		t.Errorf("with none to give up: %v, %v, %v", m, made, err)
	}
}

func TestKeysAreOfOne(t *testing.T) {
	table, l := newTable(t, 10)
	m := newMapping(t, table, 1, one)
	second := new(fakeMapping)
	if got, made, err := table.Make(1, one, func() (*fakeMapping, error) { return second, nil }); got != m || made ||
		err != nil {
		t.Errorf("a second one with the key: %v, %v", made, err)
	}
	if second.closed() != 1 || l.have[one] != 1 {
		t.Errorf("the second one was closed %d times, and %v are counted", second.closed(), l.have)
	}
	failed := errors.New("as a test")
	if _, _, err := table.Make(2, one, func() (*fakeMapping, error) { return nil, failed }); !errors.Is(err, failed) ||
		l.have[one] != 1 {
		t.Errorf("one that cannot be opened: %v, and %v are counted", err, l.have)
	}
	key := func(_ *fakeMapping, try int) (int, bool) { return 1 + try, try < 5 }
	for want := 2; want <= 5; want++ {
		if got, made, err := table.MakeFree(one, key, open); err != nil || !made || table.Get(want) != got {
			t.Errorf("key %d: %v, %v", want, made, err)
		}
	}
	if _, made, err := table.MakeFree(one, key, open); made || err != nil || l.have[one] != 5 {
		t.Errorf("with all keys taken: %v, %v, and %v are counted", made, err, l.have)
	}
	table.End(m)
	table.End(m)
	if table.Get(1) != nil || m.closed() != 1 || l.have[one] != 4 {
		t.Errorf("ended twice: closed %d times, and %v are counted", m.closed(), l.have)
	}
	m.Answer() // as by a datagram that was late
	table.EndOf(two)
	if table.Len() != 4 {
		t.Error("another container's mappings end")
	}
	table.Close()
	table.Close()
	if m, _, err := table.Make(9, one, open); !errors.Is(err, os.ErrClosed) || m != nil || len(l.have) != 0 {
		t.Errorf("a closed table: %v, and %v are counted", err, l.have)
	}
}

// TestRandomHistories has several goroutines make, answer and end mappings, and compares what is counted with what is
// there.
func TestRandomHistories(t *testing.T) {
	const most = 20
	table, l := newTable(t, most)
	var all sync.Map
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			owners := []netip.Addr{one, two}
			for range 2000 {
				m, _, err := table.Make(r.IntN(60), owners[r.IntN(2)], func() (*fakeMapping, error) {
					m := new(fakeMapping)
					all.Store(m, true)
					return m, nil
				})
				if err != nil {
					continue // others have taken the room that was made
				}
				switch r.IntN(4) {
				case 0:
					m.Answer()
				case 1:
					m.Used()
				case 2:
					table.End(m)
				case 3:
					table.GiveUp(owners[r.IntN(2)])
				}
			}
		})
	}
	wg.Wait()
	counted := map[netip.Addr]int{}
	live := map[*fakeMapping]bool{}
	for _, m := range table.All() {
		counted[m.owner]++
		live[m] = true
	}
	if !maps.Equal(counted, l.have) || counted[one] > most || counted[two] > most {
		t.Errorf("there are %v, and %v are counted", counted, l.have)
	}
	all.Range(func(m, _ any) bool {
		if got, want := m.(*fakeMapping).closed(), map[bool]int{true: 0, false: 1}[live[m.(*fakeMapping)]]; got !=
			want {
			t.Errorf("a mapping was closed %d times, want %d", got, want)
		}
		return true
	})
	queued := 0
	for _, q := range table.queues.each {
		queued += q.unanswered.Len() + q.answered.Len()
	}
	if queued != table.Len() {
		t.Errorf("%d have a place in a queue, of %d", queued, table.Len())
	}
}

// TestLookUpsAllocateNothing is the path of each datagram.
func TestLookUpsAllocateNothing(t *testing.T) {
	table, _ := newTable(t, 10)
	m := newMapping(t, table, 1, one)
	m.Answer()
	if n := testing.AllocsPerRun(100, func() { table.Get(1).Used(); m.Answer(); m.PacketsIn.Add(1) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if got := fmt.Sprint(slices.Collect(maps.Keys(table.entries))); got != "[1]" {
		t.Error(got)
	}
}
