package pasta

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// listening returns the ports at which something listens in the namespace of fd, of both families; not those of sockets
// that are bound to except, where that is valid.
func listening(fd int, proto uint8, except netip.Addr) (*portSet, error) {
	set := new(portSet)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := dump(fd, family, proto, except, set); err != nil {
			return nil, fmt.Errorf("what listens in the namespace: %w", err)
		}
	}
	return set, nil
}

func dump(fd int, family, proto uint8, except netip.Addr, set *portSet) error {
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
		done, err := parse(buf[:n], except, set)
		if done || err != nil {
			return err
		}
	}
}

// parse reads one part of a dump, and says whether it was the last.
func parse(b []byte, except netip.Addr, set *portSet) (done bool, err error) {
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
			at, _ := netip.AddrFromSlice(body[offsetAddr : offsetAddr+4])
			if body[0] == unix.AF_INET && at == except {
				break
			}
			if port := binary.BigEndian.Uint16(body[offsetPort:]); port != 0 {
				set.add(port, port)
			}
		}
		b = b[min(len(b), (size+3)&^3):] // NLMSG_ALIGN
	}
	return false, nil
}
