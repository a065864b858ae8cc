package profile

import (
	"encoding/json"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// nestingCalls are what usernet calls to make sandboxes, and what Docker's default profile allows with CAP_SYS_ADMIN
// alone. The kernel asks for that capability all the same, in the user namespace that the sandbox has then. clone3(2)
// stays refused: programs that call it fall back on clone(2).
var nestingCalls = []string{
	"clone", "mount", "move_mount", "open_tree", "pivot_root", "setdomainname", "sethostname", "setns", "umount2",
	"unshare",
}

// Nesting is Docker's default profile for containers in which usernet runs, in Docker's form: a file for
// `docker run --security-opt seccomp=FILE`.
func Nesting() (string, error) {
	p := seccomp.DefaultProfile()
	p.Syscalls = append(p.Syscalls, &seccomp.Syscall{
		LinuxSyscall: specs.LinuxSyscall{Names: nestingCalls, Action: specs.ActAllow},
		Comment:      "user namespaces, and sandboxes in them",
	})
	text, err := json.MarshalIndent(p, "", "\t")
	return string(text) + "\n", err
}
