package forwarder

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ConnectFrom binds a socket to src, connects it to dst, and makes it a connection. It owns fd from here; ctx bounds
// the waiting.
func ConnectFrom(ctx context.Context, fd int, src, dst netip.AddrPort) (*SocketConn, error) {
	err := unix.Bind(fd, sockaddr(src))
	if err == nil {
		err = unix.Connect(fd, sockaddr(dst))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(err, unix.Close(fd))
	}
	_, err = unix.Getpeername(fd)
	c := newSocketConn(fd)
	if err == nil {
		return c, nil // within one machine the handshake is over by now
	}
	if err := c.connected(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// connected waits until a socket is.
func (c *SocketConn) connected(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cerr error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if cerr = err; err != nil {
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if !stop() && err == nil {
		err = ctx.Err() // the deadline that ctx has set, or is setting, would meet what is written later
	}
	return errors.Join(err, cerr, c.SetWriteDeadline(time.Time{}))
}
