package table_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

var (
	hostA  = overlay.HostID(strings.Repeat("0a", 16))
	hostB  = overlay.HostID(strings.Repeat("0b", 16))
	netID  = strings.Repeat("ab", 32)
	subnet = netip.MustParsePrefix("10.0.0.0/24")
)

// clock is a time that tests move.
type clock struct {
	sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.Lock()
	defer c.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.Lock()
	defer c.Unlock()
	c.now = c.now.Add(d)
}

type node struct {
	*table.Table
	t     *testing.T
	store network.Store
	inUse map[string]bool // networks with endpoints here
	clock *clock
}

func join(t *testing.T, hub *tabletest.Hub, id overlay.HostID, incarnation uint64, store network.Store) *node {
	t.Helper()
	if store == nil {
		store = network.NewMemoryStore()
	}
	n := &node{t: t, store: store, inUse: map[string]bool{}, clock: &clock{now: time.Unix(1000, int64(incarnation))}}
	tab, err := table.Open(table.Config{
		Host: id, Incarnation: incarnation, Store: store, Backend: hub.Join(id, incarnation),
		Resurrect: func(network string) bool { return n.inUse[network] }, Clock: n.clock.read,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Table = tab
	tab.Start()
	t.Cleanup(func() { _ = tab.Close() })
	n.until("the first list", func() bool { return n.Status().Synced })
	return n
}

func (n *node) until(what string, f func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: not so after 20 s; %+v", what, n.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *node) putHost(id overlay.HostID, incarnation uint64) {
	n.t.Helper()
	n.put(overlay.HostKey(id), must(overlay.Encode(overlay.Host{ID: id, Name: "h", Incarnation: incarnation})))
}

func (n *node) put(key string, value []byte) {
	n.t.Helper()
	if err := n.PutClaimed(key, value); err != nil {
		n.t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func endpoint(host overlay.HostID, addr, name string) (string, []byte) {
	a := netip.MustParseAddr(addr)
	return overlay.EndpointKey(netID, a), must(overlay.Encode(overlay.Endpoint{
		Network: netID, Addrs: []netip.Addr{a}, MAC: overlay.MAC{2, 0x42}, Host: host, EndpointID: netID,
		Container: netID, Name: name, Running: true,
	}))
}

func names(list []table.EndpointView) string {
	var s []string
	for _, e := range list {
		s = append(s, fmt.Sprintf("%s=%s down=%v", e.Name, e.Addrs[0], e.Down))
	}
	return strings.Join(s, ", ")
}

func (n *node) sees(want string) {
	n.t.Helper()
	n.until("endpoints "+want, func() bool { return names(n.Endpoints(netID)) == want })
}

func TestRowsReachOtherHosts(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	a.put(endpoint(hostA, "10.0.0.2", "t1"))
	b.sees("t1=10.0.0.2 down=false")
	key, _ := endpoint(hostA, "10.0.0.2", "t1")
	b.Drop(key) // of another host
	a.Drop(key)
	b.sees("")
	if len(a.OwnEndpoints()) != 0 {
		t.Errorf("%v are left", a.OwnEndpoints())
	}
}

func TestRowsWaitForTheBackend(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	key, value := endpoint(hostA, "10.0.0.2", "t1")
	a.put(key, value)
	b.sees("t1=10.0.0.2 down=false")
	hub.Away(hostA, errors.New("connection refused"))
	a.until("noticing", func() bool { return !a.Status().Synced })
	a.Drop(key)
	a.put(endpoint(hostA, "10.0.0.3", "t2"))
	if got := names(a.Endpoints(netID)); got != "t2=10.0.0.3 down=false" {
		t.Errorf("the host itself sees %s", got)
	}
	var away *table.UnavailableError
	if err := a.Claim(t.Context(), overlay.VNIKey(7), must(overlay.Encode(overlay.Name{Network: netID}))); !errors.As(
		err, &away) {
		t.Errorf("a claim while the backend is away: %v", err)
	}
	b.sees("t1=10.0.0.2 down=true") // it stays, and is marked
	hub.Back(hostA)
	b.sees("t2=10.0.0.3 down=false")
}

func TestAHostThatIsNotHeardOfExpires(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	a.putHost(hostA, 1)
	a.put(endpoint(hostA, "10.0.0.2", "t1"))
	block := overlay.BlockKey(netID, netip.MustParsePrefix("10.0.0.0/28"))
	a.put(block, must(overlay.Encode(
		overlay.Block{Network: netID, Prefix: netip.MustParsePrefix("10.0.0.0/28"), Host: hostA})))
	b.sees("t1=10.0.0.2 down=false")
	b.until("the block", func() bool { return len(b.Blocks(netID)) == 1 })
	hub.Away(hostA, errors.New("killed"))
	b.sees("t1=10.0.0.2 down=true")
	b.clock.move(table.RecordTTL - time.Second)
	b.Expire(t.Context())
	if len(b.Endpoints(netID)) != 1 || len(b.Hosts()) != 1 {
		t.Fatal("expired too early")
	}
	b.clock.move(2 * time.Second)
	b.Expire(t.Context())
	if len(b.Endpoints(netID)) != 0 || len(b.Hosts()) != 0 || len(hub.Rows()) != 2 { // b is alive, a's block
		t.Fatalf("after its time left: %v %v", b.Hosts(), hub.Rows())
	}
	if len(b.Blocks(netID)) != 1 {
		t.Error("the block expired with the other rows")
	}
	b.clock.move(table.BlockTTL)
	b.Expire(t.Context())
	if len(b.Blocks(netID)) != 0 {
		t.Error("the block did not expire")
	}
	// A host that is cut off itself lets nothing expire.
	a.until("noticing", func() bool { return !a.Status().Synced })
	a.clock.move(time.Hour)
	a.Expire(t.Context())
	if len(a.Endpoints(netID)) != 1 {
		t.Error("cut off, and let its rows expire")
	}
	hub.Back(hostA)
	b.sees("t1=10.0.0.2 down=false")
}

func TestOwnRowsArePutAgain(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	backup := hub.Rows()
	a.put(endpoint(hostA, "10.0.0.2", "t1"))
	b.sees("t1=10.0.0.2 down=false")
	hub.Restore(backup)
	key, _ := endpoint(hostA, "10.0.0.2", "t1")
	a.until("put again", func() bool { return hub.Rows()[key].Owner == hostA })
	b.sees("t1=10.0.0.2 down=false")
	if err := hub.Join(hostB, 9).Delete(t.Context(), hub.Rows()[key]); err != nil {
		t.Fatal(err)
	}
	a.until("put again after somebody deleted it", func() bool { return hub.Rows()[key].Owner == hostA })
}

func aNetwork(owner overlay.HostID) (string, []byte) {
	return overlay.NetworkKey(netID), must(overlay.Encode(overlay.Network{
		ID: netID, Name: "ov", VNI: 7, Creator: owner,
		Subnets: []overlay.Subnet{{Subnet: subnet, Gateway: subnet.Addr().Next()}},
	}))
}

func TestNetworksAreRemovedByAnyHost(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	key, value := aNetwork(hostA)
	if err := a.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	b.until("the network", func() bool { return len(b.Networks()) == 1 })
	if err := b.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a.until("the removal", func() bool { return len(a.Networks()) == 0 })

	// Removed while its creator was away: it stays removed.
	if err := a.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	b.until("the network", func() bool { return len(b.Networks()) == 1 })
	hub.Away(hostA, errors.New("cut off"))
	if err := b.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	hub.Back(hostA)
	a.until("the removal", func() bool { return len(a.Networks()) == 0 })
}

// script is a backend that tells what a test says, and notes what it is given.
type script struct {
	events  chan table.Event
	put     chan table.Row
	deleted chan table.Row
	claim   func(table.Row) error // nil: each claim succeeds
}

// scripted is host A's table with such a backend.
func scripted(t *testing.T) (*table.Table, *script) {
	t.Helper()
	b := &script{events: make(chan table.Event), put: make(chan table.Row), deleted: make(chan table.Row, 8)}
	tab, err := table.Open(table.Config{Host: hostA, Incarnation: 1, Store: network.NewMemoryStore(), Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	tab.Start()
	t.Cleanup(func() { _ = tab.Close() })
	return tab, b
}

// tell yields events, and returns when the table has taken the last one over: the next is asked for only then.
func (b *script) tell(events ...table.Event) {
	for _, e := range append(events, table.Event{}) {
		b.events <- e
	}
}

// list yields an empty list.
func (b *script) list() {
	b.tell(table.Event{Kind: table.EventReset}, table.Event{Kind: table.EventSynced})
}

// seen yields a row that the backend has.
func (b *script) seen(row table.Row) { b.tell(table.Event{Kind: table.EventRow, Row: row}) }

func (b *script) Watch(ctx context.Context) iter.Seq2[table.Event, error] {
	return func(yield func(table.Event, error) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-b.events:
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func (b *script) Put(ctx context.Context, row table.Row) error {
	select {
	case b.put <- row:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *script) Claim(_ context.Context, row table.Row) error {
	if b.claim == nil {
		return nil
	}
	return b.claim(row)
}

func (b *script) Replace(ctx context.Context, row, _ table.Row) error { return b.Put(ctx, row) }

func (b *script) Delete(_ context.Context, row table.Row) error {
	b.deleted <- row
	return nil
}

func (b *script) Health() table.Health { return table.Health{Connected: true} }
func (b *script) Close() error         { return nil }

// TestAClaimThatIsSeenBeforeItsAnswerStays: a backend's list of changes may be faster than its answer, and without a
// store it is, by the time that a claim waits for objections.
func TestAClaimThatIsSeenBeforeItsAnswerStays(t *testing.T) {
	tab, b := scripted(t)
	b.list()
	b.claim = func(row table.Row) error {
		row.Version += 3 // a tombstone of an earlier row had that
		b.seen(row)
		return nil
	}
	key, value := endpoint(hostA, "10.0.0.2", "")
	if err := tab.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	if s := tab.Status(); s.Unsent != 0 {
		t.Errorf("%d rows are still to be written or deleted", s.Unsent)
	}
	// What is deleted is what the backend has, and nothing was deleted before.
	tab.Drop(key)
	select {
	case row := <-b.deleted:
		if len(tab.OwnEndpoints()) != 0 || row.Version != 4 {
			t.Errorf("version %d of %s was deleted", row.Version, row.Key)
		}
	case <-time.After(20 * time.Second):
		t.Error("it was not deleted")
	}
}

// TestAClaimWithoutAnAnswerIsTakenBack: a store may have done what it did not answer in time.
func TestAClaimWithoutAnAnswerIsTakenBack(t *testing.T) {
	for _, seen := range []bool{true, false} {
		tab, b := scripted(t)
		b.list()
		away := &table.UnavailableError{URL: "test", Err: errors.New("no answer")}
		b.claim = func(row table.Row) error {
			if seen {
				b.seen(row)
			}
			return away
		}
		key := overlay.NameKey("ov")
		if err := tab.Claim(t.Context(), key, must(overlay.Encode(overlay.Name{Network: netID}))); !errors.Is(err,
			away) {
			t.Fatal(err)
		}
		if _, is := tab.Claimed(key); is {
			t.Error("the name counts as claimed")
		}
		select {
		case row := <-b.deleted:
			if row.Key != key || row.Version != 1 {
				t.Errorf("version %d of %s was deleted", row.Version, row.Key)
			}
		case <-time.After(20 * time.Second):
			t.Error("nothing was deleted")
		}
	}
}

// TestWhatIsClaimedWhileTheListIsReadStays: the list was made before, and does not have it.
func TestWhatIsClaimedWhileTheListIsReadStays(t *testing.T) {
	tab, b := scripted(t)
	b.tell(table.Event{Kind: table.EventReset})
	key, value := aNetwork(hostA)
	if err := tab.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	b.tell(table.Event{Kind: table.EventSynced})
	if list := tab.Networks(); len(list) != 1 {
		t.Errorf("networks: %+v", list)
	}
	b.list() // one that was made later
	if list := tab.Networks(); len(list) != 0 {
		t.Errorf("networks that the backend lacks: %+v", list)
	}
}

// TestWhatIsPutWhileTheListIsMadeStays: the list was made before, and does not have it.
func TestWhatIsPutWhileTheListIsMadeStays(t *testing.T) {
	tab, b := scripted(t)
	b.tell(table.Event{Kind: table.EventReset})
	key, value := aNetwork(hostA)
	if err := tab.Put(key, value); err != nil {
		t.Fatal(err)
	}
	b.tell(table.Event{Kind: table.EventSynced})
	select {
	case row := <-b.put:
		if row.Key != key {
			t.Errorf("%s was sent", row.Key)
		}
	case <-time.After(20 * time.Second):
		t.Error("the network was not sent")
	}
	if list := tab.Networks(); len(list) != 1 {
		t.Errorf("networks: %+v", list)
	}
}

// TestAChangeOfANetworkSurvivesARestoredBackup has any host make it.
func TestAChangeOfANetworkSurvivesARestoredBackup(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	key, value := aNetwork(hostA)
	a.put(key, value)
	b.until("the network", func() bool { return len(b.Networks()) == 1 })
	backup := hub.Rows()
	changed := must(overlay.Decode[overlay.Network](value))
	changed.Options = map[string]string{"usernet.policy": "default deny"}
	b.put(key, must(overlay.Encode(changed)))
	policy := func(n *node) func() bool {
		return func() bool {
			r, is := n.Network(netID)
			return is && r.Options["usernet.policy"] == "default deny"
		}
	}
	a.until("the change", policy(a))
	hub.Restore(backup)
	b.until("the store has the change again", func() bool {
		return strings.Contains(string(hub.Rows()[key].Value), "default deny")
	})
	a.until("the change", policy(a))
	b.until("the change", policy(b))
}

func TestNetworksInUseSurviveARestoredBackup(t *testing.T) {
	for _, used := range []bool{true, false} {
		hub := tabletest.NewHub()
		a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
		backup := hub.Rows()
		key, value := aNetwork(hostA)
		if err := a.Claim(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
		if err := a.Claim(t.Context(), overlay.NameKey("ov"), must(overlay.Encode(
			overlay.Name{Network: netID}))); err != nil {
			t.Fatal(err)
		}
		b.until("the network", func() bool {
			_, is := b.Claimed(overlay.NameKey("ov"))
			return len(b.Networks()) == 1 && is
		})
		_ = a.Close() // its creator is gone
		b.inUse[netID] = used
		hub.Restore(backup)
		if used {
			b.until("the network is back, with its name", func() bool {
				rows := hub.Rows()
				return rows[key].Value != nil && rows[overlay.NameKey("ov")].Value != nil
			})
			continue
		}
		b.until("the network is forgotten", func() bool {
			b.clock.move(2 * time.Minute)
			b.Expire(t.Context())
			return len(b.Networks()) == 0
		})
	}
}

func TestTheOlderClaimStays(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 2, nil) // b's clock is later
	hub.Away(hostA, errors.New("partition"))
	a.until("noticing", func() bool { return !a.Status().Synced })
	key, value := endpoint(hostA, "10.0.0.2", "ta")
	a.put(key, value)
	_, other := endpoint(hostB, "10.0.0.2", "tb")
	b.put(key, other)
	b.until("sent", func() bool { return b.Status().Unsent == 0 })
	hub.Back(hostA)
	a.sees("ta=10.0.0.2 down=false")
	b.sees("ta=10.0.0.2 down=false")
	b.until("the conflict", func() bool { return len(b.Lost()) == 1 })
	if c := b.TakeChanges(); len(c.Lost) != 1 || c.Lost[0].Other.Owner != hostA {
		t.Errorf("told of %+v", c.Lost)
	}
}

// TestANameThatTwoNetworksHaveIsAConflict has two hosts make networks of one name without knowledge of each other. Both
// stay; the host whose claim is the later one is told, until that network is removed.
func TestANameThatTwoNetworksHaveIsAConflict(t *testing.T) {
	hub := tabletest.NewHub()
	a, b := join(t, hub, hostA, 2, nil), join(t, hub, hostB, 1, nil) // a's clock is later
	hub.Away(hostA, errors.New("partition"))
	a.until("noticing", func() bool { return !a.Status().Synced })
	other := strings.Repeat("cd", 32)
	for _, n := range []struct {
		by   *node
		id   string
		host overlay.HostID
	}{{a, netID, hostA}, {b, other, hostB}} {
		n.by.put(overlay.NetworkKey(n.id), must(overlay.Encode(overlay.Network{
			ID: n.id, Name: "ov", VNI: 7, Creator: n.host,
			Subnets: []overlay.Subnet{{Subnet: subnet, Gateway: subnet.Addr().Next()}},
		})))
		n.by.put(overlay.NameKey("ov"), must(overlay.Encode(overlay.Name{Network: n.id})))
	}
	b.until("sent", func() bool { return b.Status().Unsent == 0 })
	hub.Back(hostA)
	a.until("both networks", func() bool { return len(a.Networks()) == 2 })
	a.until("the conflict", func() bool { return a.Lost()[overlay.NameKey("ov")].Owner == hostB })
	if c := a.TakeChanges(); len(c.Lost) != 1 || c.Lost[0].Other.Owner != hostB {
		t.Errorf("told of %+v", c.Lost)
	}
	if lost := b.Lost(); len(lost) != 0 {
		t.Errorf("the host with the older claim has lost %v", lost)
	}
	if err := a.Delete(t.Context(), overlay.NetworkKey(netID)); err != nil {
		t.Fatal(err)
	}
	if lost := a.Lost(); len(lost) != 0 {
		t.Errorf("after the network was removed: %v", lost)
	}
}

// TestAClaimWithoutANetworkGoes has a daemon killed between the claim of a network's name and the network's record. The
// host's next life takes the claim away after a minute; others do when the host is not heard of for long.
func TestAClaimWithoutANetworkGoes(t *testing.T) {
	for _, returns := range []bool{true, false} {
		hub := tabletest.NewHub()
		a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
		a.putHost(hostA, 1)
		a.put(overlay.NameKey("ov"), must(overlay.Encode(overlay.Name{Network: netID})))
		claimed := func(n *node) bool { _, is := n.Claimed(overlay.NameKey("ov")); return is }
		b.until("the claim", func() bool { return claimed(b) })
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		cleaner, wait := b, table.RecordTTL
		if returns {
			cleaner, wait = join(t, hub, hostA, 2, a.store), time.Minute
			cleaner.until("the claim", func() bool { return claimed(cleaner) })
		} else {
			b.until("it is down", func() bool { list := b.Hosts(); return len(list) == 1 && !list[0].Alive })
		}
		for _, step := range []time.Duration{0, wait - time.Second} {
			cleaner.clock.move(step)
			cleaner.Expire(t.Context())
			if !claimed(cleaner) {
				t.Fatal("the claim went too early")
			}
		}
		if returns {
			b.clock.move(2 * table.RecordTTL)
			b.Expire(t.Context())
			b.clock.move(2 * table.RecordTTL)
			b.Expire(t.Context())
			if !claimed(b) {
				t.Error("a host took another's claim away that is heard of")
			}
		}
		cleaner.clock.move(2 * time.Second)
		cleaner.Expire(t.Context())
		for _, n := range []*node{cleaner, b} {
			n.until("the claim is gone", func() bool { return !claimed(n) })
		}
	}
}

func TestACopiedStateDirectoryIsNoticed(t *testing.T) {
	hub := tabletest.NewHub()
	first := join(t, hub, hostA, 1, nil)
	first.putHost(hostA, 1)
	first.until("sent", func() bool { return first.Status().Unsent == 0 })
	second := join(t, hub, hostA, 2, nil)
	second.putHost(hostA, 2)
	var told *table.Row
	second.until("the second one is told", func() bool {
		if c := second.TakeChanges(); c.Duplicate != nil {
			told = c.Duplicate
		}
		return told != nil
	})
	if told.Incarnation != 1 {
		t.Errorf("told of %+v", told)
	}
}

func TestAnotherLifeIsNoDuplicate(t *testing.T) {
	hub := tabletest.NewHub()
	store := network.NewMemoryStore()
	first := join(t, hub, hostA, 1, store)
	first.putHost(hostA, 1)
	first.put(endpoint(hostA, "10.0.0.2", "t1"))
	first.until("sent", func() bool { return first.Status().Unsent == 0 })
	_ = first.Close()
	second := join(t, hub, hostA, 2, store)
	b := join(t, hub, hostB, 1, nil)
	second.putHost(hostA, 2)
	b.sees("t1=10.0.0.2 down=false")
	second.put(endpoint(hostA, "10.0.0.3", "t2"))
	key, _ := endpoint(hostA, "10.0.0.2", "t1")
	second.Drop(key) // it did not come back
	b.sees("t2=10.0.0.3 down=false")
	second.until("sent", func() bool { return second.Status().Unsent == 0 })
	if c := second.TakeChanges(); c.Duplicate != nil {
		t.Errorf("the earlier life was taken for another daemon: %+v", c.Duplicate)
	}
}

func TestTheReplicaIsThereWithoutABackend(t *testing.T) {
	hub := tabletest.NewHub()
	store := network.NewMemoryStore()
	a, b := join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, store)
	a.putHost(hostA, 1)
	a.put(endpoint(hostA, "10.0.0.2", "t1"))
	b.sees("t1=10.0.0.2 down=false")
	_ = b.Close()
	hub.Away(hostB, errors.New("no route to host"))
	lonely := tabletest.NewHub()
	backend := lonely.Join(hostB, 2)
	lonely.Away(hostB, errors.New("no route to host"))
	again, err := table.Open(table.Config{Host: hostB, Incarnation: 2, Store: store, Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Start()
	if got := names(again.Endpoints(netID)); got != "t1=10.0.0.2 down=false" || len(again.Hosts()) != 1 {
		t.Errorf("without a backend: %s, hosts %v", got, again.Hosts())
	}
}

func TestSenselessRowsAreNotUsed(t *testing.T) {
	hub := tabletest.NewHub()
	a := join(t, hub, hostA, 1, nil)
	b := hub.Join(hostB, 1)
	defer b.Close()
	key, value := endpoint(hostA, "10.0.0.9", "forged")
	for _, row := range []table.Row{
		{Key: key, Value: value, Owner: hostB, Incarnation: 1, Version: 1}, // in a's name
		{Key: overlay.HostKey(hostB), Value: []byte(`{`), Owner: hostB},
		{Key: "what/is/this", Owner: hostB},
		{Key: overlay.VNIKey(7), Value: must(overlay.Encode(overlay.Name{Network: netID})), Owner: "nobody"},
	} {
		if err := b.Put(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	a.until("all are counted", func() bool { return len(a.Refused()) == 4 })
	if len(a.Endpoints(netID)) != 0 || len(a.Hosts()) != 0 {
		t.Errorf("used: %v %v", a.Endpoints(netID), a.Hosts())
	}
}
