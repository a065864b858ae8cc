package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/procname"
	"github.com/usernet/usernet/sandbox/entry"
)

// The roles, as first argument of the binary. No command has such a name.
const (
	roleAgent   = "__agent"   // configures a network namespace, then ends
	roleInit    = "__init"    // PID 1 of a sandbox, which sets it up
	roleCommand = "__command" // PID 1 of a sandbox that is set up, parent of the command
	roleUser    = "__user"    // becomes a command that has another user's id in a sandbox with one id
	roleProbe   = "__probe"   // tries in namespaces of its own what an init does, for Check
	roleHold    = "__hold"    // holds namespaces until it is killed
	roleExec    = "__exec"    // becomes one more command in a sandbox
	roleHelper  = "__helper"  // enters sandboxes for a daemon that is confined
	roleOpener  = "__opener"  // opens namespaces for the helper
)

// controlFD is the descriptor at which a role finds its socket: the first behind the standard streams.
const controlFD = entry.ControlFD

// Main runs the role that the binary was started in and ends the process; started in none, it returns. In each case
// what the process has inherited beyond the standard streams is closed in every program that it starts: a descriptor of
// the caller's would lead a container's command out of its root file system (CVE-2024-21626). others are roles of other
// packages.
func Main(others ...Role) {
	if err := closeOnExec(controlFD); err != nil {
		fmt.Fprintln(os.Stderr, "usernet:", err)
		os.Exit(125)
	}
	roles := map[string]func() error{
		roleAgent:   runAgent,
		roleInit:    runInit,
		roleCommand: runCommand,
		roleUser:    runUser,
		roleHold:    runHold,
		roleProbe:   runProbe,
		roleExec:    runExec,
		roleHelper:  runHelper,
		roleOpener:  runOpener,
	}
	allow(others, roles)
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		return
	}
	run := roles[os.Args[1]]
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // for a program that was not patched: a test's
	procname.Set(programName(os.Args[1]))
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "usernet:", err)
		os.Exit(125)
	}
	os.Exit(0)
}

// useAllProcessors is for roles that serve several requests at a time, which ownEnv is not meant for.
func useAllProcessors() { runtime.GOMAXPROCS(runtime.NumCPU()) }

// closeOnExec has all descriptors from first on closed in programs that are started later.
func closeOnExec(first uint) error {
	err := unix.CloseRange(first, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) { // Linux 5.11
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("descriptors cannot be kept from programs: %w", err)
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd >= int(first) {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
