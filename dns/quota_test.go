package dns

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestQuotaLeavesRoomForOthers(t *testing.T) {
	for _, test := range []struct {
		perClient, total, clients int
		each                      int // what each of them holds in the end
	}{
		{1024, 4096, 1, 1024},
		{1024, 1024, 1, 512},
		{1024, 4096, 4, 819},
		{1024, 4096, 100, 40},
		{256, 4096, 4, 256},
	} {
		q := newQuota(test.perClient, test.total)
		for more := true; more; { // in turns
			more = false
			for i := range test.clients {
				more = q.acquire(fmt.Sprint(i)) || more
			}
		}
		for client, held := range q.held {
			if held != test.each && held != test.each+1 || held > test.perClient {
				t.Errorf("%d clients of %d: client %s holds %d, want %d", test.clients, test.total, client, held, test.each)
			}
		}
		if !q.acquire("newcomer") {
			t.Errorf("%d clients of %d leave no room for one more", test.clients, test.total)
		}
	}
}

// TestQuotaCounts compares a quota with its rule said plainly, over random histories.
func TestQuotaCounts(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		q := newQuota(1+random.IntN(20), 1+random.IntN(60))
		model := map[string]int{}
		sum := func() (n int) {
			for _, held := range model {
				n += held
			}
			return n
		}
		for range 2000 {
			client := fmt.Sprint(random.IntN(6))
			if random.IntN(2) == 0 && model[client] > 0 {
				q.release(client)
				model[client]--
				continue
			}
			want := model[client] < q.perClient && model[client] < q.total-sum()
			if got := q.acquire(client); got != want {
				t.Fatalf("seed %d: a slot for a client with %d of %d, in use %d of %d: %v", seed, model[client], q.perClient, sum(), q.total, got)
			}
			if want {
				model[client]++
			}
			if q.inUse != sum() || q.inUse > q.total {
				t.Fatalf("seed %d: %d are in use, counted %d", seed, sum(), q.inUse)
			}
		}
	}
}
