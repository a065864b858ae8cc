package daemon

import (
	"fmt"
	"syscall"
	"testing"
)

func TestSignals(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"9": syscall.SIGKILL, "KILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM, "term": syscall.SIGTERM,
		"sigusr1": syscall.SIGUSR1,
		"0":       0, "65": 0, "-1": 0, "": 0, "SIGNOTHING": 0, "9 ": 0,
	} {
		got, err := parseSignal(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestEventsAreBoundedAndInOrder adds more events than are kept, and reads them from all sides.
func TestEventsAreBoundedAndInOrder(t *testing.T) {
	l := newEventLog()
	_, next, wake := l.from(^uint64(0))
	for i := range 3 * keptEvents {
		l.add("container", fmt.Sprint(i), "id", nil)
	}
	select {
	case <-wake:
	default:
		t.Error("who waits is not woken")
	}
	list, after, _ := l.from(next)
	if len(list) != keptEvents || list[0].Action != fmt.Sprint(2*keptEvents) || after != 3*keptEvents {
		t.Errorf("%d events from %s on, and the next is %d", len(list), list[0].Action, after)
	}
	if list, again, _ := l.from(after); len(list) != 0 || again != after {
		t.Errorf("%d events after the last", len(list))
	}
	if list, _, _ := l.from(after - 1); len(list) != 1 || list[0].Action != fmt.Sprint(3*keptEvents-1) {
		t.Errorf("the last one is %v", list)
	}
}
