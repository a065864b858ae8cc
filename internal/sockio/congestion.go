package sockio

import (
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LocalCongestion is the congestion control of TCP that stays on the machine. Every kernel has it and lets every user
// choose it (Documentation/networking/ip-sysctl.rst, tcp_allowed_congestion_control). Between two sockets of one
// machine nothing is congested, and it does no more than to count.
const LocalCongestion = "reno"

// congestionFile is the default of sockets that are made in the network namespace of the process that opens it.
const congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"

// paceless are those that send when something was acknowledged (RFC 5681, 9438), and not by a clock.
var paceless = []string{"reno", "cubic"}

// PacedCongestion is the default of TCP's congestion control in this process's network namespace where it is one that
// may pace what it sends, as BBR does, with a timer for each socket: on a path within the machine the timers cost more
// than the data. It is "" where there is none to replace by LocalCongestion.
func PacedCongestion() string {
	b, err := os.ReadFile(congestionFile)
	name := strings.TrimSpace(string(b))
	if err != nil || slices.Contains(paceless, name) {
		return ""
	}
	return name
}

// ReplaceCongestion makes to the default of sockets that are made in this process's network namespace from now on,
// where it is from, and where the kernel lets it.
func ReplaceCongestion(from, to string) {
	if b, err := os.ReadFile(congestionFile); err == nil && strings.TrimSpace(string(b)) == from {
		_ = os.WriteFile(congestionFile, []byte(to), 0o644) // TCP is slower without
	}
}

// hostPaces is asked once: a daemon that runs when the machine's default changes goes by what it was.
var hostPaces = sync.OnceValue(func() bool { return PacedCongestion() != "" })

// StaysLocal tells a TCP socket that its peer is on this machine. A socket of another family, or of a kernel that says
// no, is as before.
func StaysLocal(fd int) {
	if hostPaces() {
		SetCongestion(fd, LocalCongestion)
	}
}

// SetCongestion sets a TCP socket's congestion control, where the kernel has it.
func SetCongestion(fd int, name string) {
	_ = setOption(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION,
		unsafe.Pointer(unsafe.StringData(name)), uintptr(len(name)))
}
