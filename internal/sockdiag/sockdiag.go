// Package sockdiag asks the kernel what listens in a network namespace (sock_diag(7)). Unlike a read of /proc/net/tcp,
// the kernel goes through listening sockets only for it: the table of connections is one for all namespaces, and takes
// milliseconds on a machine with much memory, even where it is empty.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// States of sockets, include/net/tcp_states.h: that of one that listens, and that of a datagram socket without a peer.
const (
	stateClose  = 7
	stateListen = 10
)

// Layouts of <linux/inet_diag.h>: struct inet_diag_req_v2 has 56 bytes; in struct inet_diag_msg of 72 the local port
// stands in network byte order at 4, and the local address at 8, behind the family in the first byte.
const (
	sizeRequest   = 56
	sizeAnswer    = 72
	offsetStates  = 4
	offsetPort    = 4
	offsetAddr    = 8
	sizeNlmsghdr  = unix.SizeofNlMsghdr
	receiveBuffer = 32 << 10
)

// Open returns a socket that is asked about the namespace that it is opened in, wherever that happens. It is the
// caller's.
func Open() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return -1, os.NewSyscallError("socket(NETLINK_INET_DIAG)", err)
	}
	return fd, nil
}

// Listening calls f with what each socket of a family (AF_INET, AF_INET6) and protocol (IPPROTO_TCP, IPPROTO_UDP) is
// bound to that listens in the namespace of fd, or that is a datagram socket without a peer. The error is ENOENT where
// the kernel lacks the module for it.
func Listening(fd int, family, proto uint8, f func(netip.AddrPort)) error {
	state := uint32(1) << stateListen
	if proto == unix.IPPROTO_UDP {
		state = 1 << stateClose
	}
	b := make([]byte, sizeNlmsghdr+sizeRequest)
	native := binary.NativeEndian
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[sizeNlmsghdr], b[sizeNlmsghdr+1] = family, proto
	native.PutUint32(b[sizeNlmsghdr+offsetStates:], state)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, receiveBuffer)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		done, err := parse(buf[:n], f)
		if done || err != nil {
			return err
		}
	}
}

// parse reads one part of a dump, and says whether it was the last.
func parse(b []byte, f func(netip.AddrPort)) (done bool, err error) {
	native := binary.NativeEndian
	for len(b) >= sizeNlmsghdr {
		size := int(native.Uint32(b))
		if size < sizeNlmsghdr || size > len(b) {
			return false, errors.New("a netlink message with a false length")
		}
		body := b[sizeNlmsghdr:size]
		switch native.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("a netlink error without a number")
			}
			return true, unix.Errno(-int32(native.Uint32(body)))
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(body) < sizeAnswer {
				return false, errors.New("an answer of sock_diag is too short")
			}
			size := 4
			if body[0] == unix.AF_INET6 {
				size = 16
			}
			at, _ := netip.AddrFromSlice(body[offsetAddr : offsetAddr+size])
			f(netip.AddrPortFrom(at, binary.BigEndian.Uint16(body[offsetPort:])))
		}
		b = b[min(len(b), (size+3)&^3):] // NLMSG_ALIGN
	}
	return false, nil
}
