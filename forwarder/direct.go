package forwarder

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ConnectFrom binds a socket to src, connects it to dst, and makes it a connection. It owns fd from here; ctx bounds
// the waiting.
func ConnectFrom(ctx context.Context, fd int, src, dst netip.AddrPort) (*net.TCPConn, error) {
	err := unix.Bind(fd, sockaddr(src))
	if err == nil {
		err = unix.Connect(fd, sockaddr(dst))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return tcpConn(fd) // within one machine the handshake is over by now
	}
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = file.SetWriteDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
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
	if err = errors.Join(err, cerr); err != nil {
		return nil, err
	}
	return fileConn(file)
}
