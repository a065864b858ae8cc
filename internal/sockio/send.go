package sockio

import (
	"encoding/binary"
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Send sends one datagram without waiting; control messages may go with it.
func Send(fd int, payload []byte, to *RawAddr, control []byte) error {
	var v unix.Iovec
	if len(payload) > 0 {
		v.Base = &payload[0]
		v.SetLen(len(payload))
	}
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&to.space)), Namelen: to.size, Iov: &v}
	h.SetIovlen(1)
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	for {
		_, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), flags)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// segmentSpace is the space that the control message of UDP_SEGMENT takes in bytes: CMSG_SPACE(2).
const segmentSpace = unix.SizeofCmsghdr + 8

// SendSegments sends several datagrams of segment bytes each, the last may be shorter, in one call where the kernel can
// (udp(7), UDP_SEGMENT). A segment of 0 makes it one. The error is the first one's.
func SendSegments(fd int, payload []byte, segment int, to *RawAddr, control []byte) error {
	if segment <= 0 || segment >= len(payload) {
		return Send(fd, payload, to, control)
	}
	var space struct {
		_     [0]uint64 // aligned as the kernel wants control messages
		bytes [128]byte // other control messages are few and small
	}
	n := copy(space.bytes[:len(space.bytes)-segmentSpace], control)
	if n == len(control) {
		c := space.bytes[n : n+segmentSpace]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.SizeofCmsghdr + 2)
		binary.NativeEndian.PutUint16(c[unix.SizeofCmsghdr:], uint16(segment))
		if err := Send(fd, payload, to, space.bytes[:n+segmentSpace]); err == nil || errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	var first error
	for len(payload) > 0 {
		n := min(segment, len(payload))
		if err := Send(fd, payload[:n], to, control); err != nil && first == nil {
			first = err
		}
		payload = payload[n:]
	}
	return first
}
