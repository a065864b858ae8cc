package memory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/kvtest"
	"github.com/usernet/usernet/overlay/kv/memory"
)

// world is a server for each test, whose clients have faults all at once.
type world struct {
	server  *memory.Server
	test    string
	clients []*memory.Client
	backup  memory.Backup
}

func (w *world) open(t *testing.T) kv.Store {
	if w.test != t.Name() {
		*w = world{server: memory.New(), test: t.Name()}
	}
	c := w.server.Open()
	w.clients = append(w.clients, c)
	return c
}

func (w *world) set(f memory.Fault) func(*testing.T) {
	return func(*testing.T) {
		for _, c := range w.clients {
			c.Set(f)
		}
	}
}

func TestStore(t *testing.T) {
	var w world
	kvtest.Run(t, kvtest.Target{
		Open: w.open,
		Kill: w.set(memory.Fault{Err: errors.New("connection refused")}), Start: w.set(memory.Fault{}),
		Hang: w.set(memory.Fault{Hang: true}), Resume: w.set(memory.Fault{}),
		Compact: func(*testing.T) { w.server.Compact() },
		Backup:  func(*testing.T) { w.backup = w.server.Backup() },
		Restore: func(*testing.T) { w.server.Restore(w.backup) },
		MinTTL:  300 * time.Millisecond,
	})
}
