package table_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
	"github.com/usernet/usernet/overlay/table/tabletest"
)

// edit sets options of the network, with "" removes them.
func (n *node) edit(options ...string) {
	n.t.Helper()
	err := n.EditNetwork(netID, func(o map[string]string) {
		for i := 0; i < len(options); i += 2 {
			if o[options[i]] = options[i+1]; options[i+1] == "" {
				delete(o, options[i])
			}
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// has waits until a node has these options of the network, and the backend nothing else to hear of it.
func (n *node) has(want map[string]string) {
	n.t.Helper()
	n.until(fmt.Sprintf("options %v", want), func() bool {
		r, is := n.Network(netID)
		return is && maps.Equal(r.Options, want) && n.Status().Unsent == 0
	})
}

// twoHosts share a network.
func twoHosts(t *testing.T) (hub *tabletest.Hub, a, b *node) {
	hub = tabletest.NewHub()
	a, b = join(t, hub, hostA, 1, nil), join(t, hub, hostB, 1, nil)
	a.put(aNetwork(hostA))
	b.until("the network", func() bool { return len(b.Networks()) == 1 })
	a.has(nil)
	return hub, a, b
}

// TestEditsWithoutKnowledgeOfEachOtherBothStay has one host edit a network while it does not reach the backend.
func TestEditsWithoutKnowledgeOfEachOtherBothStay(t *testing.T) {
	hub, a, b := twoHosts(t)
	a.edit("x", "0", "removed", "0", "both", "0")
	b.has(map[string]string{"x": "0", "removed": "0", "both": "0"})
	hub.Away(hostB, errors.New("cut off"))
	b.edit("y", "b", "both", "b")
	b.edit("removed", "")
	a.edit("x", "a", "both", "a")
	a.has(map[string]string{"x": "a", "removed": "0", "both": "a"})
	hub.Back(hostB)
	for _, n := range []*node{a, b} { // b's came later
		n.has(map[string]string{"x": "a", "y": "b", "both": "b"})
	}
	b.edit("both", "") // what comes after that is of what is there now
	a.has(map[string]string{"x": "a", "y": "b"})
	a.edit("y", "")
	b.has(map[string]string{"x": "a"})
}

// TestAnEditOfADaemonThatEndedStays: its backend was away, and is back with another host's edit when it starts again.
func TestAnEditOfADaemonThatEndedStays(t *testing.T) {
	hub, a, b := twoHosts(t)
	hub.Away(hostB, errors.New("cut off"))
	b.edit("y", "b")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a.edit("x", "a")
	hub.Back(hostB)
	again := join(t, hub, hostB, 2, b.store)
	for _, n := range []*node{a, again} {
		n.has(map[string]string{"x": "a", "y": "b"})
	}
}

// TestAnEditOfARemovedNetwork ends with the network.
func TestAnEditOfARemovedNetwork(t *testing.T) {
	hub, a, b := twoHosts(t)
	hub.Away(hostB, errors.New("cut off"))
	b.edit("y", "b")
	key, _ := aNetwork(hostA)
	if err := a.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	hub.Back(hostB)
	b.until("the removal", func() bool { return len(b.Networks()) == 0 && b.Status().Unsent == 0 })
	if _, is := hub.Rows()[key]; is {
		t.Error("the network was put again")
	}
	if err := b.EditNetwork(netID, func(map[string]string) {}); !errors.Is(err, table.ErrUnknownNetwork) {
		t.Errorf("an edit of a network that is not there: %v", err)
	}
}

// TestEditsAtOneTime has both hosts edit a network again and again.
func TestEditsAtOneTime(t *testing.T) {
	_, a, b := twoHosts(t)
	want := map[string]string{}
	for round := range 50 {
		var both sync.WaitGroup
		for name, n := range map[string]*node{"x": a, "y": b} {
			want[name] = fmt.Sprint(round)
			both.Go(func() { n.edit(name, fmt.Sprint(round)) })
		}
		both.Wait()
		a.has(want)
		b.has(want)
	}
}

// TestAnEditThatAnotherHidesIsMadeAgain is for backends that let two hosts replace one row.
func TestAnEditThatAnotherHidesIsMadeAgain(t *testing.T) {
	tab, b := scripted(t)
	b.list()
	key, value := aNetwork(hostB)
	first := table.Row{Key: key, Value: value, Owner: hostB, Incarnation: 1, Version: 4}
	b.seen(first)
	if err := tab.EditNetwork(netID, func(o map[string]string) { o["x"], o["both"] = "a", "a" }); err != nil {
		t.Fatal(err)
	}
	mine := <-b.put
	b.seen(mine)
	b.seen(first) // late
	theirs := must(overlay.Decode[overlay.Network](value))
	theirs.Options = map[string]string{"y": "b", "both": "b"}
	other := table.Row{Key: key, Value: must(overlay.Encode(theirs)), Owner: hostB, Incarnation: 1, Version: 5}
	b.seen(other)
	merged := <-b.put
	r := must(overlay.Decode[overlay.Network](merged.Value))
	if want := map[string]string{"x": "a", "y": "b", "both": "b"}; merged.Version <= other.Version ||
		!maps.Equal(r.Options, want) {
		t.Errorf("version %d with %v, want %v", merged.Version, r.Options, want)
	}
	b.seen(merged)
	other.Version = merged.Version + 1 // the host has seen it, and wants it so
	b.seen(other)
	if n, _ := tab.Network(netID); !maps.Equal(n.Options, theirs.Options) {
		t.Errorf("%v, want %v", n.Options, theirs.Options)
	}
}

// TestAnEditThatDoesNotFit is not made.
func TestAnEditThatDoesNotFit(t *testing.T) {
	_, a, _ := twoHosts(t)
	long := string(make([]byte, overlay.MaxRecord))
	if err := a.EditNetwork(netID, func(o map[string]string) { o["x"] = long }); err == nil {
		t.Error("it was made")
	}
	a.has(nil)
}
