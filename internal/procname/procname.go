// Package procname names processes for ps(1) and systemd's log, which else show what was executed: exe for
// /proc/self/exe, and a number for /proc/self/fd/4.
package procname

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set names this process, by the name's first 15 bytes. Call it first thing in main: a process is called by the name
// of its first thread, in which main begins, and what is named is the calling thread.
func Set(name string) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return
	}
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0) // for people alone
}
