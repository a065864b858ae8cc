package table_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

// hears has a node hear what another one's backend has not.
func (n *node) hears(from *node, id overlay.HostID) {
	n.t.Helper()
	for _, row := range from.Unsent() {
		if err := n.Hear(id, row); err != nil {
			n.t.Errorf("%s: %v", row.Key, err)
		}
	}
}

// apart are two hosts with a network that both know, whose backend is away.
func apart(t *testing.T) (hub *tabletest.Hub, a, b *node) {
	t.Helper()
	hub = tabletest.NewHub()
	a, b = join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	key, value := aNetwork(hostA)
	if err := a.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	b.until("the network", func() bool { return len(b.Networks()) == 1 })
	if rows := a.Unsent(); len(rows) > 0 {
		t.Errorf("there is something to tell while the backend is reached: %v", rows)
	}
	hub.Away(hostB, errors.New("connection refused")) // first, so that it is not told that a is away
	b.until("noticing", func() bool { return !b.Status().Synced })
	hub.Away(hostA, errors.New("connection refused"))
	a.until("noticing", func() bool { return !a.Status().Synced })
	return hub, a, b
}

// TestRowsAreHeardWhileTheBackendIsAway has a container come, change and go while nobody reaches the backend.
func TestRowsAreHeardWhileTheBackendIsAway(t *testing.T) {
	hub, a, b := apart(t)
	key, value := endpoint(hostA, "10.0.0.2", "t1")
	a.put(key, value)
	b.hears(a, hostA)
	b.sees("t1=10.0.0.2 down=false")
	_, value = endpoint(hostA, "10.0.0.2", "t2")
	old := a.Unsent()
	a.put(key, value)
	b.hears(a, hostA)
	b.sees("t2=10.0.0.2 down=false")
	for _, row := range old { // late
		if err := b.Hear(hostA, row); err != nil {
			t.Error(err)
		}
	}
	b.sees("t2=10.0.0.2 down=false")
	a.Drop(key)
	b.hears(a, hostA)
	b.sees("")
	a.put(key, value)
	b.hears(a, hostA)
	b.sees("t2=10.0.0.2 down=false")

	// b lists before a has put its row: it stays.
	hub.Back(hostB)
	b.until("the list", func() bool { return b.Status().Synced })
	b.sees("t2=10.0.0.2 down=true") // the backend does not hear of a
	hub.Back(hostA)
	b.sees("t2=10.0.0.2 down=false")
	b.until("the row in the backend", func() bool { _, is := hub.Rows()[key]; return is })
	b.clock.move(2 * time.Minute)
	b.Expire(t.Context())
	b.sees("t2=10.0.0.2 down=false")
	a.Drop(key)
	b.sees("")
}

// TestHearsayEnds: what its owner neither repeats nor puts into the backend goes after a while, once that is reached.
func TestHearsayEnds(t *testing.T) {
	hub, a, b := apart(t)
	key, value := endpoint(hostA, "10.0.0.2", "t1")
	a.put(key, value)
	b.hears(a, hostA)
	b.clock.move(time.Hour)
	b.Expire(t.Context())
	b.sees("t1=10.0.0.2 down=false") // nobody knows better
	hub.Back(hostB)
	b.until("the list", func() bool { return b.Status().Synced })
	b.clock.move(50 * time.Second)
	b.hears(a, hostA)
	b.clock.move(50 * time.Second)
	b.Expire(t.Context())
	b.sees("t1=10.0.0.2 down=true")
	b.clock.move(20 * time.Second)
	b.Expire(t.Context())
	b.sees("")
}

// TestHearsayIsOfItsOwner: a host tells of its own endpoints on networks that there are, and of nothing else.
func TestHearsayIsOfItsOwner(t *testing.T) {
	_, a, b := apart(t)
	key, value := endpoint(hostA, "10.0.0.2", "t1")
	good := table.Row{Key: key, Value: value, Owner: hostA, Incarnation: 1, Version: 1}
	network, networkValue := aNetwork(hostA)
	other, otherValue := endpoint(hostB, "10.0.0.3", "t9")
	a.put(endpoint(hostA, "10.0.0.4", "t4"))
	b.put(endpoint(hostB, "10.0.0.5", "t5"))
	for name, row := range map[string]table.Row{
		"another host's row":       {Key: key, Value: value, Owner: hostB, Version: 9},
		"another host's endpoint":  {Key: other, Value: otherValue, Owner: hostA, Version: 9},
		"a network":                {Key: network, Value: networkValue, Owner: hostA, Version: 9},
		"the removal of a network": {Key: network, Owner: hostA, Version: 9, Deleted: true},
		"nonsense":                 {Key: key, Value: []byte("{"), Owner: hostA, Version: 9},
		"an unknown network's": {Key: strings.Replace(key, netID, strings.Repeat("cd", 32), 1),
			Value: []byte(strings.ReplaceAll(string(value), netID, strings.Repeat("cd", 32))), Owner: hostA,
			Version: 9},
		"no key":                       {Key: "x", Owner: hostA},
		"a block":                      {Key: "blocks/x", Owner: hostA},
		"the receiver's own endpoints": {Key: other, Value: otherValue, Owner: hostB, Version: 9},
	} {
		if err := b.Hear(hostA, row); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	mine, mineValue := endpoint(hostA, "10.0.0.5", "t6") // an address that b's container has
	if err := b.Hear(hostA, table.Row{Key: mine, Value: mineValue, Owner: hostA, Incarnation: 9, Version: 9}); err !=
		nil {
		t.Error(err)
	}
	b.sees("t5=10.0.0.5 down=false")
	if err := b.Hear(hostA, good); err != nil {
		t.Error(err)
	}
	b.sees("t1=10.0.0.2 down=false, t5=10.0.0.5 down=false")
}
