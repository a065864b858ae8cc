package test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWatchdogSeesALockThatIsNotGiven hangs one network's forwarder under its lock: the service manager is told no more
// that the daemon lives, so it would restart it, and the log says which lock it is, with the stack of who holds it.
func TestWatchdogSeesALockThatIsNotGiven(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	m := startManager(t, path)
	d := newDaemon(t)
	const period = 500 * time.Millisecond // the daemon tells twice in it
	d.prefix = []string{"NOTIFY_SOCKET=" + path, fmt.Sprint("WATCHDOG_USEC=", period.Microseconds()),
		"USERNET_FAULTS=locked=BAD-TEXT=hang"}
	d.faulty = true
	d.start()
	d.ok("network", "create", "red")
	d.ok("network", "create", "blue")
	d.idle("red-a", "--network", "red")
	d.idle("blue-a", "--network", "blue")
	target := net.JoinHostPort(host4, fmt.Sprint(freePort()))
	listenUDP(t, target)

	fed := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.fed
	}
	grows := func() {
		t.Helper()
		before := fed()
		eventually(t, func() error {
			if fed() < before+3 {
				return errors.New("the service manager is not told that the daemon lives")
			}
			return nil
		})
	}
	grows()
	if out := d.asks("red-a", "udp", target, "a-good-text"); !strings.Contains(out, "a-good-text") {
		t.Errorf("before the hang: %q", out)
	}
	if strings.Contains(d.logText(), "is not given") {
		t.Errorf("a lock is missed that nobody holds:\n%s", d.logText())
	}
	d.asks("red-a", "udp", target, "BAD-TEXT")
	log := filepath.Join(d.dir, "log")
	eventually(t, func() error { return fileHas(log, "a lock is not given") })
	for _, want := range []string{`lock="network red: forwarder"`, "HandleUDP"} {
		if err := fileHas(log, want); err != nil {
			t.Error(err)
		}
	}
	before := fed()
	for deadline := time.Now().Add(4 * period); time.Now().Before(deadline); time.Sleep(period / 10) {
		if fed() != before {
			t.Error("the service manager is told that the daemon lives")
			break
		}
	}
	if out := d.asks("blue-a", "udp", target, "a-good-text"); !strings.Contains(out, "a-good-text") {
		t.Errorf("another network, during the hang: %q", out)
	}
	if err := d.cmd.Process.Signal(syscall.SIGUSR2); err != nil { // the end of the hang
		t.Fatal(err)
	}
	eventually(t, func() error { return fileHas(log, "a lock is given again") })
	grows()
}
