package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What of /proc and /sys is no business of a container's, or shows the whole machine's state: Docker's default
// (daemon/pkg/oci/defaults.go), which follows the runtime-spec.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// mountProc mounts a fresh /proc. The kernel refuses one where parts of the caller's are masked, as in Docker's
// containers (mount_too_revealing in fs/namespace.c).
func mountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", mountFlags, ""); err != nil {
		return fmt.Errorf("a /proc of the sandbox's own cannot be mounted: %w", err)
	}
	return nil
}

// mountSys mounts a fresh /sys, which has the interfaces of the sandbox's network namespace, and no cgroups. false: the
// kernel refuses, as for /proc.
func mountSys() bool {
	return unix.Mount("sysfs", "/sys", "sysfs", mountFlags|unix.MS_RDONLY, "") == nil
}

// restrictSystemPaths masks and write-protects paths of /proc and /sys.
func restrictSystemPaths() error {
	for _, path := range maskedPaths {
		if err := hide(path); err != nil {
			return err
		}
	}
	for _, path := range readOnlyPaths {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := readOnly(path); err != nil {
			return err
		}
	}
	return nil
}

// allowLowPorts sets what Docker sets in a network namespace: every user may serve ports below 1024 and send pings.
// gids is how many groups the user namespace has, from 0 on: the kernel takes no others. Where /proc/sys cannot be
// written, both are left to root.
func allowLowPorts(gids int) {
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", fmt.Appendf(nil, "0 %d", gids-1), 0)
}
