package profile

import (
	"fmt"
	"slices"
	"strings"
)

// names are the kernel's capabilities in their order (include/uapi/linux/capability.h).
var names = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG",
	"MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// defaults are the capabilities that Docker gives a container (daemon/pkg/oci/caps/defaults.go).
var defaults = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE",
	"SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// A Set is a set of capabilities, a bit for each.
type Set uint64

// All is every capability.
var All = Set(1<<len(names)) - 1

// Has says whether capability c is in the set.
func (s Set) Has(c int) bool { return s&(1<<c) != 0 }

// Names are the capabilities' names, as CAP_CHOWN.
func (s Set) Names() []string {
	var list []string
	for c, name := range names {
		if s.Has(c) {
			list = append(list, "CAP_"+name)
		}
	}
	return list
}

// Capabilities is Docker's default with those in drop taken away and those in add added; both may say ALL, which the
// other then refines. Names are with or without CAP_, in any case.
func Capabilities(add, drop []string) (Set, error) {
	var s Set
	for _, name := range defaults {
		s |= 1 << slices.Index(names, name)
	}
	adds, addAll, err := parse(add)
	if err != nil {
		return 0, err
	}
	drops, dropAll, err := parse(drop)
	if err != nil {
		return 0, err
	}
	switch {
	case addAll:
		return All &^ drops, nil
	case dropAll:
		return adds, nil
	}
	return s&^drops | adds, nil
}

func parse(list []string) (s Set, all bool, err error) {
	for _, name := range list {
		short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		c := slices.Index(names, short)
		switch {
		case short == "ALL":
			all = true
		case c < 0:
			return 0, false, fmt.Errorf("unknown capability %q", name)
		default:
			s |= 1 << c
		}
	}
	return s, all, nil
}
