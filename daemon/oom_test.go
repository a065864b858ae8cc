package daemon

import (
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestContainersWithoutMemoryAreNotedNowAndThen has a container run out of memory again and again, and another one
// once.
func TestContainersWithoutMemoryAreNotedNowAndThen(t *testing.T) {
	const every, writes = 100 * time.Millisecond, 5000
	events := make(chan fsnotify.Event)
	var mu sync.Mutex
	noted, last := map[string]int{}, time.Time{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		first := true
		noteWrites(events, every, func(id string) bool {
			mu.Lock()
			defer mu.Unlock()
			if id == "once" && first {
				first = false
				return false // it is only about to be killed
			}
			if noted[id]++; id == "loop" {
				last = time.Now()
			}
			return true
		})
	}()
	write := func(id string) {
		events <- fsnotify.Event{Name: "/x/container-" + id + "/memory.events", Op: fsnotify.Write}
	}
	began := time.Now()
	for range writes {
		write("loop")
	}
	sent := time.Now()
	write("loop")
	write("once")
	write("once") // counts at once
	events <- fsnotify.Event{Name: "/x/daemon/memory.events", Op: fsnotify.Write}
	deadline := time.Now().Add(patience)
	for done := false; !done; time.Sleep(time.Millisecond) {
		mu.Lock()
		done = noted["once"] == 1 && noted["loop"] > 1 && last.After(sent)
		mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("what was last is not noted: %v", noted)
		}
	}
	close(events)
	<-ended
	if most := int(time.Since(began)/every) + 2; noted["loop"] > most || len(noted) != 2 {
		t.Errorf("noted %v, at most %d are possible", noted, most)
	}
}
