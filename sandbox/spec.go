package sandbox

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// Spec is what is to run, and how.
type Spec struct {
	Command     []string
	Env         []string // all of it; PATH in it finds the command
	WorkingDir  string
	Rootfs      string // "" is the caller's file system
	Hostname    string
	Domainname  string
	User        string // "UID[:GID]" to run the command as; "" is root in the sandbox
	UserNS      string // UserNSAuto, which "" is as well, UserNSHost or UserNSRange
	TTY         bool   // a terminal of its own; Stdin and Stdout are then this end of it
	HostNetwork bool   // the caller's network namespace
	JoinNet     *Target
	// Limits are the command's; nil: none but those of its namespaces.
	Limits *Limits
	// AllSystemPaths shows all of /proc and /sys, and lets root in the sandbox write there what the kernel allows it.
	AllSystemPaths bool
	// NoProc leaves /proc empty where Rootfs is set and the kernel refuses a fresh one. The mounts are not locked then.
	NoProc bool
	// Devices are further devices of the host's that a sandbox with a Rootfs has.
	Devices []string
	// Hidden are files and directories of the caller's that a sandbox finds empty: one without Rootfs, or by a volume.
	Hidden []string
	// Volumes and Tmpfs are mounted besides. Without Rootfs, their places have to be there already.
	Volumes []Volume
	Tmpfs   []Tmpfs
	// ReadOnly makes the root file system read-only: what is mounted in the sandbox besides it is not. Without Rootfs
	// it is all of the caller's files.
	ReadOnly bool
	// Cgroup is the directory of a cgroup of version 2 in which the sandbox's processes are started, and which is the
	// root of its cgroup namespace; "": the caller's. The caller has to be in a cgroup from which it may move a process
	// there (package cgroup).
	Cgroup string `json:",omitempty"`

	Stdin  *os.File `json:"-"` // nil is /dev/null
	Stdout *os.File `json:"-"`
	Stderr *os.File `json:"-"`
}

// terminalInside says whether the command's terminal is one of the sandbox's own /dev/pts.
func (s Spec) terminalInside() bool { return s.TTY && s.Rootfs != "" }

// userIDs reads "UID[:GID]".
func userIDs(user string) (uid, gid int, err error) {
	u, g, ok := strings.Cut(user, ":")
	if !ok {
		g = u
	}
	ids := [2]int{}
	for i, text := range []string{u, g} {
		// All ones stands for no id at all (setresuid(2)), and larger numbers are others' once they are cut off.
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil || id == math.MaxUint32 {
			return 0, 0, fmt.Errorf("user %q: give a number, or UID:GID", user)
		}
		ids[i] = int(id)
	}
	return ids[0], ids[1], nil
}

// CheckUser says what is wrong with a Spec's User; "" is right.
func CheckUser(user string) error {
	if user == "" {
		return nil
	}
	_, _, err := userIDs(user)
	return err
}

// ExitError says that the command could not be started; Code is the exit status a shell would give.
type ExitError struct {
	Code int // 125 the sandbox, 126 not executable, 127 not found
	Msg  string
}

// Error is the message.
func (e *ExitError) Error() string { return e.Msg }

// startRequest is what the init reads from its control socket.
type startRequest struct {
	Spec     Spec
	Hostname string   // "" is the spec's
	Etc      []string // files of /etc that the init makes and this end writes
}

// startSignal follows the second startRequest once the command is to run.
type startSignal struct{}

// startReply is what the init writes to it.
type startReply struct {
	Error string `json:",omitempty"`
	Code  int    `json:",omitempty"` // exit status to end with, where Error is set
	// SetUp: the descriptors of the files in startRequest.Etc come with it, and that of a terminal; it waits for the
	// request again.
	SetUp bool `json:",omitempty"`
	// Mounts: with SetUp, the mount namespace that the init leaves comes first.
	Mounts bool `json:",omitempty"`
	Ready  bool `json:",omitempty"` // the command runs
}
