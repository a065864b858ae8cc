package vswitch

import (
	"context"
	"testing"
	"time"
)

// TestWidensWhilePaced has the number of processors follow floods: more while one goes on, those of before when it is
// over, and when there is nobody any more who follows.
func TestWidensWhilePaced(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	sets, floods, now := make(chan int), make(chan struct{}, 1), 1
	set := func(n int) int {
		was := now
		if n > 0 {
			now = n
			sets <- n
		}
		return was
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		widen(ctx, 2, set, floods, time.Millisecond)
	}()
	wants := func(n int) {
		t.Helper()
		select {
		case got := <-sets:
			if got != n {
				t.Fatalf("%d processors, want %d", got, n)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("still not %d processors", n)
		}
	}
	for range 2 {
		floods <- struct{}{}
		wants(2)
		wants(1)
	}
	floods <- struct{}{}
	wants(2)
	cancel()
	wants(1)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it follows still")
	}
}
