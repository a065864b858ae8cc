package budget

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestOneClientLeavesRoomForOthers has greedy clients come one after another: each still gets a share, and as much as
// one of them holds stays free.
func TestOneClientLeavesRoomForOthers(t *testing.T) {
	const total = 1000
	b := New(0, total)
	most := map[string]int64{}
	for n := range int64(9) {
		client := fmt.Sprint(n)
		for b.Acquire(client, 1) {
			most[client]++
		}
		if most[client] == 0 {
			t.Errorf("client %d gets nothing", n)
		}
		if free := total - b.Used(); free < most[client] {
			t.Errorf("client %d holds %d, and only %d are free", n, most[client], free)
		}
	}
	if most["0"] != total/2 {
		t.Errorf("the first holds %d of %d", most["0"], total)
	}
}

// TestGreedyClientsEndAlike releases at random until all have what they can get.
func TestGreedyClientsEndAlike(t *testing.T) {
	const total, clients = 1200, 3
	b := New(0, total)
	held := [clients]int64{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		i := rnd.IntN(clients)
		if b.Acquire(fmt.Sprint(i), 1) {
			held[i]++
		}
		if i = rnd.IntN(clients); held[i] > 0 && rnd.IntN(4) == 0 { // each connection ends at some time
			b.Release(fmt.Sprint(i), 1)
			held[i]--
		}
	}
	for i, n := range held {
		if n < total/(clients+1)*8/10 || n > total/(clients+1)*12/10 {
			t.Errorf("client %d holds %d, want about %d", i, n, total/(clients+1))
		}
	}
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name             string
		perClient, total int64
		do               func(b *Budget) bool
		want             bool
	}{
		{"no limits", 0, 0, func(b *Budget) bool { return b.Acquire("a", 1<<40) }, true},
		{"below the client's", 10, 0, func(b *Budget) bool { return b.Acquire("a", 10) }, true},
		{"above the client's", 10, 0, func(b *Budget) bool { return b.Acquire("a", 11) }, false},
		{"half of the total", 0, 20, func(b *Budget) bool { return b.Acquire("a", 10) }, true},
		{"more than half of the total", 0, 20, func(b *Budget) bool { return b.Acquire("a", 11) }, false},
		{"half of the client's", 10, 0, func(b *Budget) bool { return b.AcquireUpTo("a", 5, 2) }, true},
		{"more than half of the client's", 10, 0, func(b *Budget) bool { return b.AcquireUpTo("a", 6, 2) }, false},
		{"as much as is free elsewhere", 0, 0, func(b *Budget) bool { return b.AcquireWithin("a", 5, 10) }, true},
		{"more than is free elsewhere", 0, 0, func(b *Budget) bool { return b.AcquireWithin("a", 6, 10) }, false},
		{"what others hold", 0, 30, func(b *Budget) bool { return b.Acquire("b", 15) && b.Acquire("a", 8) }, false},
		{"what others have given back", 0, 30, func(b *Budget) bool {
			b.Acquire("b", 15)
			b.Release("b", 15)
			return b.Acquire("a", 15)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.do(New(test.perClient, test.total)); got != test.want {
				t.Errorf("it says %t", got)
			}
		})
	}
}

func TestNothingStaysBehind(t *testing.T) {
	b := New(0, 100)
	b.Acquire("a", 7)
	b.Release("a", 7)
	if len(b.clients.held) != 0 || b.Used() != 0 {
		t.Errorf("%v is held", b.clients.held)
	}
}

// TestTotalOfOneIsGiven has the smallest total of all, which cannot be halved.
func TestTotalOfOneIsGiven(t *testing.T) {
	b := New(0, 1)
	for range 3 {
		if !b.Acquire("a", 1) {
			t.Fatal("nobody gets the one that there is")
		}
		if b.Acquire("b", 1) || b.Acquire("a", 1) {
			t.Fatal("it was given twice")
		}
		b.Release("a", 1)
	}
	if b.Acquire("a", 2) {
		t.Error("two of one were given")
	}
	if b.AcquireWithin("a", 1, 0) {
		t.Error("one was given where none is free")
	}
}

// TestAllowsIsWhatAcquireWouldDo compares them while two clients fill a budget.
func TestAllowsIsWhatAcquireWouldDo(t *testing.T) {
	b := New(40, 100)
	for i := range 200 {
		client := []string{"a", "b"}[i%2]
		before := b.Used()
		allowed := b.Allows(client, 3)
		if b.Used() != before {
			t.Fatal("to ask takes something")
		}
		if got := b.Acquire(client, 3); got != allowed {
			t.Fatalf("after %d of %s: allowed %v, given %v", i, client, allowed, got)
		}
	}
}
