package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/network"
)

// limitedJob is a job of a container with limits, in a directory of the test's.
func limitedJob(t *testing.T) *job {
	t.Helper()
	j := &job{
		StateDir:  t.TempDir(),
		Secret:    newSecret(),
		Container: &network.Container{ID: strings.Repeat("1f", 32)},
	}
	if err := os.MkdirAll(daemon.JobsDir(j.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	return j
}

// attended is a `usernet run` that waits for the monitor, which may take as long as patience.
func attended(t *testing.T, j *job, patience time.Duration) *attending {
	t.Helper()
	a, err := j.attend(false, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a
}

// TestStreamsAreForTheMonitor: one that does not know the secret gets none, and one that says nothing keeps the monitor
// waiting no longer than it may.
func TestStreamsAreForTheMonitor(t *testing.T) {
	j := limitedJob(t)
	a := attended(t, j, 2*time.Second)
	path, done, err := jobSocket(j.StateDir, j.Container.ID, attendSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	silent, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	liar := *j
	liar.Secret = newSecret()
	if got := liar.meetAttendant(); got != nil {
		t.Fatal("streams for one that does not know the secret")
	}
	monitor := j.meetAttendant()
	if monitor == nil {
		t.Fatal("no streams for the monitor")
	}
	defer monitor.close()
	if out, errs := monitor.outputs(); monitor.stdin() != nil || out == nil || errs == nil {
		t.Errorf("its streams are %v, %v, %v", monitor.stdin(), out, errs)
	}
	monitor.ended(7)
	if code, err := a.wait(t.Context()); code != 7 || err != nil {
		t.Errorf("exit status %d, %v, want 7", code, err)
	}
}

// TestMonitorsThatDoNotCome, or that go away, are an end of waiting.
func TestMonitorsThatDoNotCome(t *testing.T) {
	j := limitedJob(t)
	a := attended(t, j, attendPatience)
	monitor := j.meetAttendant()
	if monitor == nil {
		t.Fatal("no streams for the monitor")
	}
	monitor.close()
	if _, err := a.wait(t.Context()); err == nil || !strings.Contains(err.Error(), "the container's monitor ended") {
		t.Errorf("%v", err)
	}
	alone := attended(t, limitedJob(t), time.Millisecond)
	if _, err := alone.wait(t.Context()); err == nil || !strings.Contains(err.Error(), "usernet logs 1f1f1f1f1f1f`") {
		t.Errorf("%v", err)
	}
}
