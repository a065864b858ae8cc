package sockio

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxRights is how many descriptors one message can carry (SCM_MAX_FD in include/net/scm.h).
const MaxRights = 253

// WriteRights writes b to a Unix socket, with descriptors beside it (unix(7), SCM_RIGHTS), which stay the caller's. It
// returns how much of b was written: on a stream socket that may be a part, which has taken the descriptors with it.
func WriteRights(c *net.UnixConn, b []byte, fds ...int) (n int, err error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err = c.WriteMsgUnix(b, oob, nil)
	return n, err
}

// SendRights sends b on a socket that keeps messages apart and has a peer, with descriptors beside it, which stay the
// caller's. It is for sockets that package net does not have: it sends no descriptors to a connected Unix datagram
// socket.
func SendRights(fd int, b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, b, oob, nil, unix.MSG_NOSIGNAL))
}

// Received is what one read from a Unix socket has brought.
type Received struct {
	N   int   // bytes; 0 at the end of a connection that keeps messages apart
	FDs []int // the caller's
	// Truncated says that more descriptors came than were wanted or than this process may open; the kernel closed them.
	Truncated bool
}

// ReadRights reads into b, and takes up to most descriptors that come with it. With an error nothing is left open.
func ReadRights(c *net.UnixConn, b []byte, most int) (Received, error) {
	oob := make([]byte, unix.CmsgSpace(most*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return Received{}, err
	}
	fds, err := ParseRights(oob[:oobn])
	if err != nil {
		Close(fds)
		return Received{}, err
	}
	return Received{N: n, FDs: fds, Truncated: flags&unix.MSG_CTRUNC != 0}, nil
}

// ParseRights returns the descriptors in control messages, as net.UnixConn receives them: with MSG_CMSG_CLOEXEC.
// Messages of other kinds are passed over. With an error come those that stood before what is damaged: the caller
// closes them.
func ParseRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control messages: %w", err)
	}
	for i := range messages {
		h := messages[i].Header
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, fmt.Errorf("descriptors in a control message: %w", err)
		}
		fds = append(fds, some...)
	}
	return fds, nil
}
