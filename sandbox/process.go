package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// errProcessGone is what StartTime says of a process that has ended. Its other errors say nothing about the process.
var errProcessGone = errors.New("the process has ended")

// StartTime is when a process started, in clock ticks since boot (proc_pid_stat(5), field 22). With the pid it names
// a process for good: a pid that is used again has another start time.
func StartTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("there is no process %d: %w", pid, errProcessGone)
	}
	if err != nil {
		return 0, err
	}
	// The second field, the command's name in parentheses, may hold anything; count from its end.
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	// The state is that of one thread, the first, which has also ended for a moment while another one calls execve(2),
	// as the init of a sandbox does when its command is to run (de_thread in fs/exec.c). Field 20 is how many threads
	// there are.
	if (fields[0] == "Z" || fields[0] == "X") && (fields[17] == "0" || fields[17] == "1") {
		return 0, fmt.Errorf("process %d: %w", pid, errProcessGone)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// How long Alive waits for a descriptor, and how often it tries.
const (
	aliveRetry   = 10 * time.Millisecond
	aliveRetries = 200
)

// Alive says whether the process that had pid at start still runs. A process of which nothing can be told, as where
// there is no descriptor to ask with, is taken for alive after two seconds: to take it for ended would leave it
// running, unwatched.
func Alive(pid int, start uint64) bool {
	for range aliveRetries {
		now, err := StartTime(pid)
		switch {
		case err == nil:
			return now == start
		case errors.Is(err, errProcessGone), errors.Is(err, unix.ESRCH): // read(2) of a process that ends meanwhile
			return false
		case !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE):
			return true
		}
		time.Sleep(aliveRetry)
	}
	return true
}

// Wait returns nil once the process has ended, or ctx's error. It waits on a pidfd in the runtime's poller, without a
// thread.
func Wait(ctx context.Context, pid int, start uint64) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if !Alive(pid, start) {
		return f.Close()
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	if err := pollEnd(f); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watching process %d: %w", pid, err)
	}
	return ctx.Err()
}

// pollEnd returns once the process of a pidfd has ended.
func pollEnd(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var other error
	err = raw.Read(func(fd uintptr) bool {
		events, err := sockio.Ready(int(fd), unix.POLLIN)
		if err == nil && events != 0 && events&unix.POLLIN == 0 {
			other = fmt.Errorf("poll says %#x", events) // which is no end
		}
		return err == nil && events != 0
	})
	return errors.Join(err, other)
}
