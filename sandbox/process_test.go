package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestProcessesAreAliveWithoutDescriptors: where /proc cannot be read for want of a descriptor, a process that runs is
// not taken for one that has ended, and one that has ended is told once there is a descriptor.
func TestProcessesAreAliveWithoutDescriptors(t *testing.T) {
	start, err := StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if !Alive(os.Getpid(), start) || Alive(os.Getpid(), start+1) || Alive(cmd.Process.Pid, start) {
		t.Error("wrong with descriptors")
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	alive := Alive(os.Getpid(), start)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !alive {
		t.Error("a process that runs is taken for one that has ended")
	}
}

// leaderEnds is set in a process that is to lose its first thread.
const leaderEnds = "USERNET_TEST_LEADER_ENDS"

func init() { // which runs on the first thread
	if os.Getenv(leaderEnds) != "" {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of the thread; the runtime's others stay
	}
}

// TestAProcessWithoutItsFirstThreadIsAlive: /proc says zombie of it, as it does for a moment of one that calls
// execve(2).
func TestAProcessWithoutItsFirstThreadIsAlive(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), leaderEnds+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // between two looks
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, %v", stat, err)
		}
		if strings.Contains(string(stat), ") Z ") {
			break
		}
	}
	start, err := StartTime(pid)
	if err != nil || !Alive(pid, start) {
		t.Errorf("taken for one that has ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Wait(ctx, pid, start) }()
	select {
	case err := <-ended:
		t.Errorf("waiting for it has ended: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough for what was wrong
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cancel()
	_ = cmd.Wait()
	if Alive(pid, start) {
		t.Error("one that has ended is taken for alive")
	}
}
