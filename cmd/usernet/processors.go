package main

import (
	"context"
	"os"
	"runtime"
	"sync"

	"github.com/usernet/usernet/internal/sockio"
	vswitch "github.com/usernet/usernet/switch"
)

// sharedProcessors is up to how many processors half of them are left to those who send and receive. It was measured on
// two: with one for the daemon instead of both, host to container went from 6.2 to 10.7 Gbit/s, container to host from
// 7.8 to 9.4, and requests of one byte from 4.0 to 4.6 thousand a second, since a frame is handed on within a thread
// and nobody is woken on another processor that has work already. Machines with more than four have processors to
// spare, and nothing was measured there.
const sharedProcessors = 4

// shareProcessors leaves half of a small machine to those who send and receive, until stop is called. While a container
// floods others, the process uses all processors. The variable GOMAXPROCS overrides both.
func shareProcessors() (stop func()) {
	all := runtime.GOMAXPROCS(0)
	n := processorsFor(all, os.Getenv("GOMAXPROCS"))
	if n == 0 {
		return func() {}
	}
	runtime.GOMAXPROCS(n)
	sockio.CountProcessors()
	ctx, cancel := context.WithCancel(context.Background())
	var widens sync.WaitGroup
	widens.Go(func() { vswitch.WidenWhilePaced(ctx, all, runtime.GOMAXPROCS) })
	return func() {
		cancel()
		widens.Wait()
	}
}

// processorsFor is how many processors the daemon runs on where Go's runtime would take n; 0 leaves it to the runtime,
// which also follows changes of a cgroup's limit.
func processorsFor(n int, variable string) int {
	if variable != "" || n > sharedProcessors {
		return 0
	}
	return max(1, n/2)
}
