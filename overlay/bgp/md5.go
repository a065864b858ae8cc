package bgp

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPassword is the longest password of a session, in bytes (TCP_MD5SIG_MAXKEYLEN in linux/tcp.h).
const MaxPassword = unix.TCP_MD5SIG_MAXKEYLEN

// signed returns what sets up a socket to sign its segments (RFC 2385) towards a neighbour, for net.Dialer.Control. The
// kernel lets any user do that.
func signed(to netip.Addr, password string) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var sig unix.TCPMD5Sig
		// The address is a struct sockaddr_in or sockaddr_in6: behind the family come a port of two bytes, which does
		// not count, and for IPv6 the flow label of four.
		if to.Is4() {
			sig.Addr.Family = unix.AF_INET
			copy(sig.Addr.Data[2:], to.AsSlice())
		} else {
			sig.Addr.Family = unix.AF_INET6
			copy(sig.Addr.Data[2+4:], to.AsSlice())
		}
		sig.Keylen = uint16(copy(sig.Key[:], password))
		var err error
		if raw := c.Control(func(fd uintptr) {
			err = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
		}); raw != nil {
			return raw
		}
		if err != nil {
			return fmt.Errorf("signing segments to %v (TCP MD5): %w", to, err)
		}
		return nil
	}
}
