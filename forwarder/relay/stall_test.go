package relay

import "testing"

// TestStallIsOnlyWhileWaiting: a flow that is not stalled passes on what came before a reset, as a socket would.
func TestStallIsOnlyWhileWaiting(t *testing.T) {
	interrupted := 0
	s := &stall{watch: func() {}, interrupt: func() { interrupted++ }}
	if !s.begin() {
		t.Error("a source that was not reset cannot be waited with")
	}
	s.end()
	s.sourceReset()
	if interrupted != 0 {
		t.Error("a direction that waits for nothing was interrupted")
	}
	if s.begin() {
		t.Error("a wait began after the source's reset")
	}
	s = &stall{watch: func() {}, interrupt: func() { interrupted++ }}
	s.begin()
	s.sourceReset()
	if interrupted != 1 {
		t.Error("a direction that waits was not interrupted")
	}
}
