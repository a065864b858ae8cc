package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setThreadName names the calling thread, by its first 15 bytes. ps and systemd's log call a process by the name of its
// first thread, in which main begins: without one, a program executed as /proc/self/fd/4 is called 4.
func setThreadName(name string) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return
	}
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0) // for people alone
}
