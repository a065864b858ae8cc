package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip/memnet"
	"github.com/usernet/usernet/overlay/table"
)

const patience = 60 * time.Second

// until polls a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// quick has memberlist notice things soon.
func quick(c *memberlist.Config) {
	c.ProbeInterval, c.ProbeTimeout, c.GossipInterval = 200*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
	c.PushPullInterval, c.TCPTimeout, c.SuspicionMult = 500*time.Millisecond, 2*time.Second, 2
	c.GossipToTheDeadTime = time.Second
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// host is a member with what its watch has told.
type host struct {
	*Backend
	id  overlay.HostID
	net *memnet.Host

	mu      sync.Mutex // guards what follows
	rows    map[string]table.Row
	synced  int
	stopped func()
}

// cluster is a network and its hosts.
type cluster struct {
	t   *testing.T
	net memnet.Network
}

// start starts a host with seeds.
func (c *cluster) start(id overlay.HostID, incarnation uint64, seeds ...*host) *host {
	return c.startKey(testKey, id, incarnation, seeds...)
}

func (c *cluster) startKey(key []byte, id overlay.HostID, incarnation uint64, seeds ...*host) *host {
	c.t.Helper()
	return c.startAs(func(config *Config) { config.Keys = [][]byte{key} }, id, incarnation, seeds...)
}

// startAs starts a host with another configuration.
func (c *cluster) startAs(
	change func(*Config), id overlay.HostID, incarnation uint64, seeds ...*host,
) *host {
	c.t.Helper()
	h := &host{id: id, net: c.net.Host(), rows: map[string]table.Row{}}
	config := Config{
		Host: id, Incarnation: incarnation, Keys: [][]byte{testKey}, Transport: h.net, Rejoin: 300 * time.Millisecond,
		Objections: 500 * time.Millisecond, Alone: time.Second, Log: slog.New(slog.DiscardHandler), tune: quick,
	}
	change(&config)
	for _, s := range seeds {
		config.Seeds = append(config.Seeds, s.net.Addr().String())
	}
	var err error
	if h.Backend, err = New(config); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	reader.Go(func() {
		for e, err := range h.Watch(ctx) {
			h.take(e, err)
		}
	})
	var once sync.Once
	h.stopped = func() {
		once.Do(func() {
			cancel()
			reader.Wait()
			if err := h.Close(); err != nil {
				c.t.Errorf("close: %v", err)
			}
		})
	}
	c.t.Cleanup(h.stopped)
	return h
}

func (h *host) take(e table.Event, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
	case e.Kind == table.EventReset:
		clear(h.rows)
	case e.Kind == table.EventSynced:
		h.synced++
	case e.Row.Deleted:
		delete(h.rows, e.Row.Key)
	default:
		h.rows[e.Row.Key] = e.Row
	}
}

// said is what Watch said last of a key.
func (h *host) said(key string) table.Row {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rows[key]
}

func (h *host) value(key string) string         { return string(h.said(key).Value) }
func (h *host) owner(key string) overlay.HostID { return h.said(key).Owner }
func (h *host) incarnation(key string) uint64   { return h.said(key).Incarnation }

func (h *host) row(key, value string, version uint64) table.Row {
	return table.Row{Key: key, Value: []byte(value), Owner: h.id, Incarnation: h.config.Incarnation, Version: version}
}

func (h *host) claim(key string, at int64) error {
	row := h.row(key, `{"claim":1}`, 1)
	row.Claimed = at
	return h.Claim(context.Background(), row)
}

// hosts starts n hosts that all have the first as a seed.
func hosts(t *testing.T, n int) (*cluster, []*host) {
	t.Helper()
	c := &cluster{t: t}
	list := []*host{c.start(hostID(0), 1)}
	for i := 1; i < n; i++ {
		list = append(list, c.start(hostID(i), 1, list[0]))
	}
	until(t, "all hosts hear of each other", func() bool {
		for _, h := range list {
			for _, other := range list {
				if h.incarnation(overlay.AliveKey(other.id)) != 1 {
					return false
				}
			}
		}
		return true
	})
	return c, list
}

func hostID(i int) overlay.HostID { return overlay.HostID(fmt.Sprintf("%032x", i+1)) }

func everywhere(t *testing.T, list []*host, key, value string) {
	t.Helper()
	until(t, fmt.Sprintf("%s is %q everywhere", key, value), func() bool {
		for _, h := range list {
			if h.value(key) != value {
				return false
			}
		}
		return true
	})
}

func put(t *testing.T, h *host, key, value string, version uint64) {
	t.Helper()
	if err := h.Put(t.Context(), h.row(key, value, version)); err != nil {
		t.Fatal(err)
	}
}

func TestRowsReachAllHosts(t *testing.T) {
	_, list := hosts(t, 5)
	for i, h := range list {
		put(t, h, overlay.HostKey(h.id), fmt.Sprint("v", i), 1)
	}
	for i, h := range list {
		everywhere(t, list, overlay.HostKey(h.id), fmt.Sprint("v", i))
	}
	key := overlay.HostKey(list[1].id)
	put(t, list[1], key, "again", 2)
	everywhere(t, list, key, "again")
	// An old version does not come back; its owner's Put is raised above it.
	put(t, list[1], key, "low", 1)
	everywhere(t, list, key, "low")
	row := list[1].said(key)
	if err := list[3].Delete(t.Context(), table.Row{Key: key, Owner: list[1].id, Incarnation: 1, Version: 1}); err !=
		nil {
		t.Fatal(err)
	}
	until(t, "what changed meanwhile is not deleted", func() bool { return list[3].value(key) == "low" })
	if err := list[3].Delete(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	everywhere(t, list, key, "")
}

// TestARowThatAnotherHostChanged goes as a whole when it is deleted: what the first host wrote does not come back.
func TestARowThatAnotherHostChanged(t *testing.T) {
	_, list := hosts(t, 3)
	key := overlay.NetworkKey(strings.Repeat("ab", 32))
	put(t, list[0], key, "made", 1)
	everywhere(t, list, key, "made")
	put(t, list[1], key, "changed", 2)
	everywhere(t, list, key, "changed")
	if err := list[2].Delete(t.Context(), list[2].said(key)); err != nil {
		t.Fatal(err)
	}
	everywhere(t, list, key, "")
	for _, h := range list {
		h.Backend.mu.Lock()
		row, is := h.Backend.mu.state.visible(key)
		h.Backend.mu.Unlock()
		if is {
			t.Errorf("%q came back", row.Value)
		}
	}
}

func TestALateHostHasTheWholeTable(t *testing.T) {
	c, list := hosts(t, 2)
	for i := range 3000 {
		put(t, list[0], fmt.Sprintf("eps/n/%d", i), strings.Repeat("x", 400)+fmt.Sprint(i), 1)
	}
	late := c.start(hostID(9), 1, list[1])
	until(t, "all rows", func() bool {
		late.mu.Lock()
		defer late.mu.Unlock()
		return len(late.rows) >= 3000+3
	})
	if late.value("eps/n/2999") != strings.Repeat("x", 400)+"2999" {
		t.Error("a row is not as it was written")
	}
}

func TestAHostThatIsGoneIsNotAlive(t *testing.T) {
	_, list := hosts(t, 3)
	put(t, list[2], overlay.HostKey(list[2].id), "v", 1)
	everywhere(t, list, overlay.HostKey(list[2].id), "v")
	gone := overlay.AliveKey(list[2].id)
	list[2].stopped()
	for _, h := range list[:2] {
		until(t, "its alive/ row is gone", func() bool { return h.owner(gone) == "" })
	}
	if v := list[0].value(overlay.HostKey(list[2].id)); v != "v" {
		t.Errorf("its record says %q", v)
	}
}

// TestPartition splits four hosts into halves for long enough that each holds the other for dead. Both go on; merged,
// all rows are everywhere, deletions too.
func TestPartition(t *testing.T) {
	c, list := hosts(t, 4)
	for i, h := range list {
		put(t, h, fmt.Sprint("hosts/", i), "before", 1)
		everywhere(t, list, fmt.Sprint("hosts/", i), "before")
	}
	left := map[netip.AddrPort]bool{list[0].net.Addr(): true, list[1].net.Addr(): true}
	c.net.Cut(func(from, to netip.AddrPort) bool { return left[from] != left[to] })
	for _, h := range list {
		until(t, "each half holds the other for dead", func() bool {
			alive := 0
			for _, other := range list {
				if h.incarnation(overlay.AliveKey(other.id)) != 0 {
					alive++
				}
			}
			return alive == 2
		})
	}
	put(t, list[0], "hosts/0", "left", 2)
	put(t, list[3], "hosts/3", "right", 2)
	put(t, list[1], "eps/n/1", "new", 1)
	if err := list[2].Delete(t.Context(), list[2].row("hosts/2", "before", 1)); err != nil {
		t.Fatal(err)
	}
	everywhere(t, list[:2], "hosts/0", "left")
	everywhere(t, list[2:], "hosts/2", "")
	everywhere(t, list[:2], "hosts/2", "before")
	c.net.Cut(nil)
	everywhere(t, list, "hosts/0", "left")
	everywhere(t, list, "hosts/1", "before")
	everywhere(t, list, "hosts/2", "")
	everywhere(t, list, "hosts/3", "right")
	everywhere(t, list, "eps/n/1", "new")
	for _, h := range list {
		for _, other := range list {
			until(t, "all are alive", func() bool { return h.incarnation(overlay.AliveKey(other.id)) == 1 })
		}
	}
}

// TestClaimsAreMadeOnce has all hosts claim the same keys at the same time.
func TestClaimsAreMadeOnce(t *testing.T) {
	_, list := hosts(t, 4)
	const keys = 6
	won := [keys]map[overlay.HostID]bool{}
	var mu sync.Mutex // guards won
	var all sync.WaitGroup
	for i, h := range list {
		for k := range keys {
			all.Go(func() {
				err := h.claim(fmt.Sprint("blocks/n/", k), int64(100+(i+k)%4)) // each host is the oldest for some
				var taken *table.TakenError
				switch {
				case err == nil:
					mu.Lock()
					defer mu.Unlock()
					if won[k] == nil {
						won[k] = map[overlay.HostID]bool{}
					}
					won[k][h.id] = true
				case !errors.As(err, &taken):
					t.Errorf("claim: %v", err)
				}
			})
		}
	}
	all.Wait()
	for k := range keys {
		if len(won[k]) != 1 {
			t.Errorf("key %d was given to %v", k, won[k])
		}
		want := list[(8-k)%4].id
		if !won[k][want] {
			t.Errorf("key %d was given to %v; the oldest claim is %s", k, won[k], want)
		}
		until(t, "all hosts say whose it is", func() bool {
			for _, h := range list {
				if h.owner(fmt.Sprint("blocks/n/", k)) != want {
					return false
				}
			}
			return true
		})
	}
	if err := list[0].claim("blocks/n/0", 1); !won[0][list[0].id] {
		var taken *table.TakenError
		if !errors.As(err, &taken) {
			t.Errorf("a claim of what is known to be another's: %v", err)
		}
	}
}

// TestAClaimThatIsLateIsMade: what a claim waits for is time, which a busy machine takes more of. So a caller's limit
// does not end it, and one who gives up does.
func TestAClaimThatIsLateIsMade(t *testing.T) {
	_, list := hosts(t, 2)
	limited, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // 500 ms are waited for objections
	defer cancel()
	row := list[0].row("names/late", "late", 1)
	row.Claimed = 100
	if err := list[0].Claim(limited, row); err != nil {
		t.Errorf("a claim whose time is short: %v", err)
	}
	until(t, "the others know it", func() bool { return list[1].owner(row.Key) == list[0].id })
	list[0].config.Objections = patience // so that the claim is given up before it is made
	gone, giveUp := context.WithCancel(t.Context())
	row = list[0].row("names/gone", "gone", 1)
	row.Claimed = 100
	ended := make(chan error, 1)
	go func() { ended <- list[0].Claim(gone, row) }()
	until(t, "the others hear of the claim", func() bool { return list[1].owner(row.Key) == list[0].id })
	giveUp()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a claim that was given up: %v", err)
	}
	until(t, "it is taken back", func() bool { return list[1].owner(row.Key) == "" })
}

// TestClaimsOfAPartition has two halves claim one key. Merged, the older claim has it on all hosts, and the other has
// it when the first is given up.
func TestClaimsOfAPartition(t *testing.T) {
	c, list := hosts(t, 2)
	c.net.Cut(func(_, _ netip.AddrPort) bool { return true })
	if err := errors.Join(list[0].claim("blocks/n/1", 200), list[1].claim("blocks/n/1", 100)); err != nil {
		t.Fatal(err)
	}
	c.net.Cut(nil)
	for _, h := range list {
		until(t, "the older claim has it", func() bool { return h.owner("blocks/n/1") == list[1].id })
	}
	row := list[1].said("blocks/n/1")
	if err := list[1].Delete(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		until(t, "the other claim has it", func() bool { return h.owner("blocks/n/1") == list[0].id })
	}
}

// TestAWrongKeyIsCounted has a host with another key join. Nothing is taken from it, and both sides say why.
func TestAWrongKeyIsCounted(t *testing.T) {
	c, list := hosts(t, 2)
	stranger := c.startKey([]byte("another key, of 32 bytes as well"), hostID(7), 1, list[0])
	put(t, stranger, "hosts/s", "v", 1)
	for _, h := range []*host{stranger, list[0]} {
		until(t, "health speaks of the key",
			func() bool { return strings.Contains(strings.Join(h.Health().Notes, "\n"), "--cluster-key") })
	}
	if stranger.Health().Connected || stranger.Health().Err == nil {
		t.Errorf("the stranger's health: %+v", stranger.Health())
	} else if text := stranger.Health().Err.Error(); strings.Contains(text, "\n") {
		t.Errorf("the reason has several lines: %q", text)
	}
	if list[0].owner(overlay.AliveKey(stranger.id)) != "" || list[0].value("hosts/s") != "" {
		t.Error("the stranger is a member")
	}
}

// TestTheLogSaysOnceThatKeysDiffer has memberlist complain of each message.
func TestTheLogSaysOnceThatKeysDiffer(t *testing.T) {
	var log bytes.Buffer
	l := &lines{log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		if _, err := l.Write([]byte("[ERR] memberlist: no installed keys could decrypt the message\n")); err != nil {
			t.Fatal(err)
		}
	}
	if text := log.String(); strings.Count(text, "--cluster-key") != 1 || l.wrongKey.Load() != 3 {
		t.Errorf("counted %d, logged:\n%s", l.wrongKey.Load(), text)
	}
}

// TestTheLogSaysWhenNoHostIsJoined has seeds that do not answer: the first failure is logged, and after a success
// again.
func TestTheLogSaysWhenNoHostIsJoined(t *testing.T) {
	var log bytes.Buffer
	b := &Backend{config: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	for _, err := range []error{errors.New("first"), errors.New("second"), nil, errors.New("third")} {
		b.joined(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || strings.Contains(text, "second") {
		t.Errorf("logged:\n%s", text)
	}
}

// TestTwoDaemonsWithOneID have a copied state directory. Both are members, and alive/ is the later one's.
func TestTwoDaemonsWithOneID(t *testing.T) {
	c, list := hosts(t, 2)
	double := c.start(list[1].id, 5, list[0])
	key := overlay.AliveKey(list[1].id)
	for _, h := range []*host{list[0], list[1], double} {
		until(t, "alive/ is the later one's", func() bool { return h.incarnation(key) == 5 })
	}
	double.stopped()
	for _, h := range list {
		until(t, "alive/ is the earlier one's again", func() bool { return h.incarnation(key) == 1 })
	}
}

// TestTheFirstHostGoesOn has seeds that never answer.
func TestTheFirstHostGoesOn(t *testing.T) {
	c := &cluster{t: t}
	never := &host{net: c.net.Host()}
	h := c.start(hostID(0), 1, never)
	until(t, "a list", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.synced > 0
	})
	if err := h.claim("blocks/n/1", 1); err != nil {
		t.Error(err)
	}
	if health := h.Health(); health.Connected || health.Err == nil {
		t.Errorf("health without a seed: %+v", health)
	}
}

// noPaths lead nowhere yet.
type noPaths struct{ Paths }

func (noPaths) Detour(overlay.HostID) bool             { return false }
func (noPaths) Reached() map[overlay.HostID]netip.Addr { return nil }

// TestAHostBehindNATSettles: no broadcast reaches a host whose paths do not stand yet, and they need the other's
// record, which was not there when it joined.
func TestAHostBehindNATSettles(t *testing.T) {
	c := &cluster{t: t}
	joinsOnly := func(config *Config) {
		config.Rejoin, config.Paths = time.Hour, noPaths{}
		config.tune = func(m *memberlist.Config) {
			quick(m)
			m.GossipInterval, m.PushPullInterval, m.ProbeInterval = 0, 0, 0
		}
	}
	first := c.startAs(joinsOnly, hostID(0), 1)
	behind := c.startAs(joinsOnly, hostID(1), 1, first)
	until(t, "the two are members", func() bool { return behind.numMembers() == 2 && first.numMembers() == 2 })
	key := overlay.HostKey(first.id)
	put(t, first, key, "here", 1)
	until(t, "the first host's record is at the second", func() bool { return behind.value(key) == "here" })
}
