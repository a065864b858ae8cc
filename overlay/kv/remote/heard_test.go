package remote

import (
	"encoding/gob"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/memory"
)

// TestALeaseEndsWithAHolderThatIsSilent has a process that was stopped: its stream stays open, and says nothing. The
// program that has the store does not keep its lease alive for ever.
func TestALeaseEndsWithAHolderThatIsSilent(t *testing.T) {
	here, there := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = Serve(there, func(kv.Location) (kv.Store, error) { return memory.New().Open(), nil })
	})
	t.Cleanup(serving.Wait)
	defer here.Close()
	if err := here.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	out, in := gob.NewEncoder(here), gob.NewDecoder(here)
	say := func(r request) answer {
		t.Helper()
		var a answer
		if err := out.Encode(r); err != nil {
			t.Fatal(err)
		}
		if err := in.Decode(&a); err != nil || a.Err.decode() != nil {
			t.Fatalf("request %d: %v %v", r.Op, err, a.Err.decode())
		}
		return a
	}
	say(request{ID: 1, Op: opOpen})
	if a := say(request{ID: 2, Op: opLease, TTL: 300 * time.Millisecond}); a.Last {
		t.Fatal("the lease ended at once")
	}
	var a answer
	if err := in.Decode(&a); err != nil || a.ID != 2 || !a.Last {
		t.Fatalf("the lease is kept alive for a silent process: %+v, %v", a, err)
	}
}
