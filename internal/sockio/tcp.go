package sockio

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// keepAliveProbes is how many probes without an answer end a connection.
const keepAliveProbes = 3

// MaxKeepAlive is the longest timeout that there is: half of it is at most MAX_TCP_KEEPIDLE (the kernel's
// include/net/tcp.h).
const MaxKeepAlive = 2 * 32767 * time.Second

// KeepAlive is a socket's keepalive (tcp(7)) that ends a connection after half of timeout in silence and probes in the
// other half; 0: what the kernel has, 2 hours and more. The kernel counts in seconds.
func KeepAlive(timeout time.Duration) net.KeepAliveConfig {
	if timeout <= 0 {
		return net.KeepAliveConfig{}
	}
	timeout = min(timeout, MaxKeepAlive)
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     max(timeout/2, time.Second).Round(time.Second),
		Interval: max(timeout/2/keepAliveProbes, time.Second).Round(time.Second),
		Count:    keepAliveProbes,
	}
}

// SetTCP sets, on a socket that is to be connected or listens, the options that a relayed connection needs; those that
// a listener accepts take them over (tcp(7), Linux). Of a process that was killed, the kernel closes the connections:
// to their peers that is a reset, and not the end of what there was to read.
func SetTCP(fd int, keepAlive net.KeepAliveConfig) error {
	if err := SetLinger(fd, true); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	options := [...][3]int{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, // or urgent data would be lost (RFC 6093, 3.4)
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count},
	}
	wanted := options[:]
	if !keepAlive.Enable {
		wanted = options[:3] // the kernel's own times
	}
	for _, o := range wanted {
		err := SetOption(fd, o[0], o[1], o[2])
		if errors.Is(err, unix.EOPNOTSUPP) && o[1] == unix.SO_OOBINLINE {
			continue // an inherited socket of multipath TCP, which knows no urgent data
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
