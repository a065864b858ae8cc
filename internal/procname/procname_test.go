package procname

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestSet(t *testing.T) {
	done := make(chan struct{})
	go func() { // whose thread ends with it
		defer close(done)
		runtime.LockOSThread()
		for name, want := range map[string]string{
			"usernet-monitor": "usernet-monitor", "usernet-of-a-long-name": "usernet-of-a-lo", "no\x00name": "",
		} {
			before, _ := os.ReadFile("/proc/thread-self/comm")
			Set(name)
			if want == "" {
				want = strings.TrimSpace(string(before))
			}
			if got, err := os.ReadFile("/proc/thread-self/comm"); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%q: %q, %v, want %q", name, got, err, want)
			}
		}
	}()
	<-done
}
