package sockio

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadySurvivesSignals asks while signals come without end, as those of Go's runtime do on a busy machine.
func TestReadySurvivesSignals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, fd := unix.Gettid(), int(r.Fd())
	var done atomic.Bool
	var signals sync.WaitGroup
	for range 2 {
		signals.Go(func() {
			for !done.Load() {
				_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG) // what the runtime sends to preempt
			}
		})
	}
	interrupted := 0
	for range 200_000 {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
			interrupted++
		}
		if events, err := Ready(fd, unix.POLLIN); err != nil || events != 0 {
			t.Fatalf("an empty pipe: events %#x, %v", events, err)
		}
	}
	done.Store(true)
	signals.Wait()
	t.Logf("poll itself was interrupted %d times", interrupted)
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if events, err := Ready(fd, unix.POLLIN); err != nil || events != unix.POLLIN {
		t.Errorf("a pipe with a byte: events %#x, %v", events, err)
	}
}
