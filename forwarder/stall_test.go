package forwarder

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// resetEnd closes an end of a test's connection with a reset.
func resetEnd(e end) {
	switch e := e.(type) {
	case *net.TCPConn:
		_ = e.SetLinger(0)
		_ = e.Close()
	case interface{ Abort() }:
		e.Abort()
	default:
		_ = e.Close() // with something unread, that is a reset (RFC 2525, 2.17)
	}
}

// stalled makes a flow in one path, and fills it from one end until nothing moves any more.
func stalled(t *testing.T, w *world, pair, way int) (from, to end) {
	t.Helper()
	container, host := pairs[pair].make(t, w)
	from, to = container, host
	if way == 1 {
		from, to = host, container
	}
	t.Cleanup(func() { from.Close(); to.Close() })
	if _, err := to.Write([]byte("never read")); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 64<<10)
	moved := func() uint64 {
		var n uint64
		for _, fl := range w.Flows() {
			n += fl.BytesIn + fl.BytesOut
		}
		return n
	}
	for sent, last := 0, uint64(0); ; { // until neither the sender nor the flow has moved for a while
		_ = from.SetDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := from.Write(piece)
		sent += n
		if err != nil && n == 0 && moved() == last {
			break
		}
		if sent > 1<<30 {
			t.Fatal("what nobody reads goes on and on")
		}
		last = moved()
	}
	_ = from.SetDeadline(time.Time{})
	return from, to
}

// within fails the test where f does not return: it may hang with a lock held, so that the test cannot wait for it.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

var ways = []string{"to the host", "to the container"}

// TestStalledFlowsEnd ends each kind of flow that waits for a peer that does not read, in each way that a flow ends.
func TestStalledFlowsEnd(t *testing.T) {
	ends := []struct {
		name string
		end  func(w *world, from, to end)
	}{
		{"its container ends", func(w *world, _, _ end) { w.AbortContainer(containerAddr) }},
		{"the sender resets it", func(_ *world, from, _ end) { resetEnd(from) }},
		{"the receiver resets it", func(_ *world, _, to end) { resetEnd(to) }},
	}
	for i, pair := range pairs {
		for way, wayName := range ways {
			for _, e := range ends {
				t.Run(fmt.Sprint(pair.name, " ", wayName, ", ", e.name), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, nil)
					from, to := stalled(t, w, i, way)
					within(t, "the end of a flow", func() { e.end(w, from, to) })
					within(t, "the list of flows", func() {
						eventually(t, func() error {
							if list := w.Flows(); len(list) > 0 {
								return fmt.Errorf("flows are left: %+v", list)
							}
							return nil
						})
					})
				})
			}
			t.Run(fmt.Sprint(pair.name, " ", wayName, ", the forwarder ends"), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				stalled(t, w, i, way)
				within(t, "the end of the forwarder", func() { _ = w.Forwarder.Close() })
			})
		}
	}
}
