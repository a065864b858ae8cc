package daemon

import (
	"context"
	"sync"

	"github.com/usernet/usernet/network"
)

// turns lets one at a time do something about each namespace.
type turns struct {
	mu   sync.Mutex // guards busy; never held while waiting
	busy map[network.NamespaceID]chan struct{}
}

// take waits for the turn, or for ctx. The turn ends when done is called.
func (t *turns) take(ctx context.Context, id network.NamespaceID) (done func(), err error) {
	for {
		t.mu.Lock()
		if t.busy == nil {
			t.busy = map[network.NamespaceID]chan struct{}{}
		}
		busy := t.busy[id]
		if busy == nil {
			mine := make(chan struct{})
			t.busy[id] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.busy, id)
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
