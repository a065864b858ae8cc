package vswitch

import (
	"context"
	"sync/atomic"
	"time"
)

// Where Go code runs on one processor, all goroutines wait while the kernel runs another program in the place of the
// one thread: beside a program that floods, 3 to 8 ms at a time were seen. With a second one others go on meanwhile.
// That costs throughput where nobody floods, so the process has it only while readers are paced.

// pauses is sent to when a reader pauses since others have frames as well.
var pauses = make(chan struct{}, 1)

// narrow is how many processors the process used before the flood that goes on; 0: there is none.
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
