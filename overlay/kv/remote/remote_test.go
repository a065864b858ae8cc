package remote_test

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/kvtest"
	"github.com/usernet/usernet/overlay/kv/memory"
	"github.com/usernet/usernet/overlay/kv/remote"
)

// world is a server for each test, whose clients are on the other side of a stream.
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
	client := w.server.Open()
	w.clients = append(w.clients, client)
	here, there := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := remote.Serve(there, func(kv.Location) (kv.Store, error) { return client, nil }); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(serving.Wait) // after the store was closed
	s, err := remote.New(here, kv.Location{})
	if err != nil {
		t.Fatal(err)
	}
	return s
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

func TestAnOpenThatFailsSaysWhy(t *testing.T) {
	here, there := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = remote.Serve(there, func(kv.Location) (kv.Store, error) { return nil, errors.New("no certificate") })
		_ = there.Close()
	})
	defer serving.Wait()
	if _, err := remote.New(here, kv.Location{}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Error(err)
	}
}

func TestTheOtherSideEnds(t *testing.T) {
	here, there := net.Pipe()
	client := memory.New().Open()
	go func() { _ = remote.Serve(there, func(kv.Location) (kv.Store, error) { return client, nil }) }()
	s, err := remote.New(here, kv.Location{})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_ = there.Close()
	select {
	case <-lease.Lost():
	case <-time.After(kvtest.Patience):
		t.Error("the lease is not lost")
	}
	if _, err := s.Get(t.Context(), "hosts/a"); err == nil || errors.Is(err, kv.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
