package confine

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// KeepCapabilities takes all capabilities from every thread of the process but those of keep, as far as it has them
// (CAP_NET_BIND_SERVICE, ...: capabilities(7)). It is for processes that a caller started as root of a user namespace
// and that have made there what they need. Ambient capabilities go with the inheritable ones. The bounding set stays:
// with NoNewPrivileges, no program gains what its caller did not have.
func KeepCapabilities(keep ...uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has, kept [2]unix.CapUserData // each bit is a capability: 32 in the first, the others in the second
	if err := unix.Capget(&header, &has[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for _, c := range keep {
		bit := has[c/32].Permitted & (1 << (c % 32))
		kept[c/32].Permitted |= bit
		kept[c/32].Effective |= bit
	}
	// capset(2) is for one thread, and the Go runtime may run the process's code on any.
	_, _, errno := psx.Syscall3(
		unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&kept[0])), 0)
	if errno != 0 {
		return fmt.Errorf("capabilities cannot be given up: %w", errno)
	}
	return nil
}
