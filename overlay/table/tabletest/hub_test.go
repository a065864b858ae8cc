package tabletest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

var host1, host2 = overlay.HostID(strings.Repeat("01", 16)), overlay.HostID(strings.Repeat("02", 16))

// follow collects what a backend's watch yields.
func follow(t *testing.T, b table.Backend) <-chan any {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, done := make(chan any), make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range b.Watch(ctx) {
			var what any = e
			if err != nil {
				what = err
			}
			select {
			case c <- what:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// until waits for what f accepts.
func until(t *testing.T, c <-chan any, what string, f func(any) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-c:
			if f(e) {
				return
			}
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}

func synced(e any) bool { ev, is := e.(table.Event); return is && ev.Kind == table.EventSynced }

func TestHostsSeeEachOthersRows(t *testing.T) {
	hub := NewHub()
	a, b := hub.Join(host1, 1), hub.Join(host2, 1)
	defer a.Close()
	defer b.Close()
	events := follow(t, b)
	until(t, events, "the end of the list", synced)
	row := table.Row{Key: overlay.VNIKey(7), Value: []byte("x"), Owner: host1, Incarnation: 1, Version: 1}
	if err := a.Claim(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	until(t, events, "the other's row",
		func(e any) bool { ev, is := e.(table.Event); return is && ev.Row.Key == row.Key })
	var taken *table.TakenError
	other := row
	other.Owner = host2
	if err := b.Claim(t.Context(), other); !errors.As(err, &taken) || taken.Row.Owner != host1 {
		t.Fatalf("the same claim of another host: %v", err)
	}
	stale := row
	stale.Version = 9
	if err := b.Delete(t.Context(), stale); err != nil || len(hub.Rows()) < 2 {
		t.Fatalf("a row was deleted that has another version: %v", err)
	}
	hub.Away(host2, errors.New("gone"))
	until(t, events, "the error", func(e any) bool {
		err, is := e.(error)
		return is && strings.Contains(err.Error(), "gone")
	})
	if err := b.Put(t.Context(), row); err == nil {
		t.Fatal("a row was put while the hub was away")
	}
	hub.Back(host2)
	until(t, events, "a new list", synced)
}
