// Package confine takes from a running process what it will not need any more.
//
// # The central idea
//
// A daemon that parses what containers send may one day parse it wrongly. What an attacker then has is what the process
// still may do, so it gives up everything but its work: its directories (Landlock), its system calls (seccomp), gaining
// privileges (no_new_privs), and being read by others of its user (not dumpable). All of it holds for every thread and
// every later child, and cannot be taken back.
//
// `usernet serve` calls Daemon.Apply once it listens. What needs more than is left, entering sandboxes, is done by
// processes that were started before (sandbox.Helper), and that confine themselves by profiles of their own. The
// package knows nothing of containers.
package confine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Measure is one way to confine a process.
type Measure string

// The measures, in the order in which they are taken.
const (
	NoNewPrivileges Measure = "no-new-privileges" // no program started later gains any (prctl(2), PR_SET_NO_NEW_PRIVS)
	NotDumpable     Measure = "not-dumpable"      // no core dumps, no ptrace(2), /proc/PID closed to the same user
	Landlock        Measure = "landlock"          // files: those of Paths only (landlock(7))
	Seccomp         Measure = "seccomp"           // system calls: those of a network daemon only (seccomp(2))
)

// All are all measures.
var All = []Measure{NoNewPrivileges, NotDumpable, Landlock, Seccomp}

// Parse reads a list of measures as given to --confine: names, or "off" alone for none.
func Parse(names []string) ([]Measure, error) {
	if len(names) == 1 && names[0] == "off" {
		return nil, nil
	}
	var list []Measure
	for _, n := range names {
		if !slices.Contains(All, Measure(n)) {
			return nil, fmt.Errorf(
				"confinement %q is not known: give off, or any of %s",
				n,
				strings.Join(Names(All), ","),
			)
		}
		list = append(list, Measure(n))
	}
	return list, nil
}

// Names are the measures as strings.
func Names(list []Measure) []string {
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = string(m)
	}
	return names
}

// NeedsHelper says whether a process with these measures cannot enter sandboxes itself.
func NeedsHelper(list []Measure) bool {
	return slices.Contains(list, Landlock) || slices.Contains(list, Seccomp)
}

// Paths are what Landlock leaves of the file system. What does not exist is left out.
type Paths struct {
	Write    []string // directories, with everything in them
	Read     []string // files, and directories with everything in them
	Sockets  []string // directories, in which sockets may be made, and anything may be removed, but no file be written
	Modify   []string // directories, whose files may be read and written, but neither made nor removed
	Devices  []string // device files, to be read, written and controlled (ioctl(2))
	Programs []string // files and directories that may be read and executed
}

// Profile is what a kind of process needs, and keeps.
type Profile struct {
	name     string
	measures []Measure
	calls    [][]uint32 // system calls besides those of the Go runtime and of glibc, in several lists
	families []uint32   // of socket(2)
	children bool       // processes of its own, and programs, but no namespaces for them
	readOnly bool       // opens files for reading only
}

// errUnsupported says that the kernel or the architecture has no such measure.
var errUnsupported = errors.New("not supported here")

// With is the profile with these measures only.
func (p Profile) With(list []Measure) Profile {
	p.measures = list
	return p
}

// Apply takes the profile's measures in their order and returns those that are in force. What the machine lacks is a
// warning: the process goes on without it. Landlock and Seccomp imply NoNewPrivileges, which the kernel wants for them.
func (p Profile) Apply(paths Paths) (inForce []Measure, warnings []error) {
	for _, m := range All {
		if !slices.Contains(p.measures, m) && !(m == NoNewPrivileges && NeedsHelper(p.measures)) {
			continue
		}
		if err := p.take(m, paths); err != nil {
			warnings = append(warnings, fmt.Errorf("%s runs without %s: %w", p.name, m, err))
			continue
		}
		inForce = append(inForce, m)
	}
	return inForce, warnings
}

func (p Profile) take(m Measure, paths Paths) error {
	switch m {
	case NoNewPrivileges:
		return ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case NotDumpable:
		return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	case Landlock:
		return restrictFiles(paths)
	default:
		return p.filterSystemCalls()
	}
}
