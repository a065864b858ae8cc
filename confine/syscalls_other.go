//go:build !amd64 && !arm64

package confine

const auditArch = 0

var runtimeCalls, archRuntimeCalls []uint32

// The profiles, without lists of system calls for this architecture.
var (
	Daemon = Profile{name: "the daemon", measures: All}
	Helper = Profile{name: "the daemon's helper", measures: All, children: true}
	Opener = Profile{
		name:     "the daemon's opener",
		measures: []Measure{NoNewPrivileges, NotDumpable, Seccomp},
		readOnly: true,
	}
)
