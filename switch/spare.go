package vswitch

import (
	"context"
	"sync/atomic"
	"time"
)

// A process that runs Go code on one processor stands still while the kernel lets another program run in the place of
// its one thread: 4 to 8 ms at a time with Linux's tick of 4 ms, beside a program that floods. A second one lets other
// goroutines go on meanwhile. It costs throughput where nobody floods, so it is there while readers are paced only.

// pauses is sent to when a reader pauses since others have frames as well.
var pauses = make(chan struct{}, 1)

// narrow is on how many processors the process runs but for a flood that goes on; 0: none does.
var narrow atomic.Int64

// calmFor is for how long no reader was paced when a flood is over. Changing the number of processors stops all
// goroutines for some 0.1 ms.
const calmFor = time.Second

// WidenWhilePaced has the process run on n processors while readers are paced, until ctx ends. set is
// runtime.GOMAXPROCS.
func WidenWhilePaced(ctx context.Context, n int, set func(int) int) {
	widen(ctx, n, set, pauses, calmFor)
}

func widen(ctx context.Context, n int, set func(int) int, pauses <-chan struct{}, calm time.Duration) {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pauses:
		}
		narrow.Store(int64(set(0)))
		set(n)
		for goes := true; goes && ctx.Err() == nil; {
			timer.Reset(calm)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			select {
			case <-pauses:
			default:
				goes = false
			}
		}
		set(int(narrow.Swap(0)))
	}
}

// notePaced has a process that widens itself do so. It does not block.
func notePaced() {
	select {
	case pauses <- struct{}{}:
	default:
	}
}
