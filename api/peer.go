package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/sockio"

	"golang.org/x/sys/unix"
)

// Under what a request's context has the peer's user, an int, and what checks its process, once: a func() error.
type (
	uidKey     struct{}
	processKey struct{}
)

// CheckPeers has f asked about the process behind each connection of this user, by its pid as the daemon sees it,
// before its first request. An error of f is the answer to all requests of that connection. It is set before Serve.
func (s *Server) CheckPeers(f func(pid int) error) { s.checkPeer = f }

// withPeer adds to a connection's context who is at its other end, as the kernel says it (unix(7)).
func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	f, ok := c.(*fileConn)
	if !ok {
		return context.WithValue(ctx, uidKey{}, -1)
	}
	ctx = context.WithValue(ctx, fileConnKey{}, f)
	u := f.UnixConn
	cred, err := peerCredentials(u)
	if err != nil {
		return context.WithValue(ctx, uidKey{}, -1)
	}
	if uid := int(cred.Uid); s.checkPeer != nil && uid == os.Geteuid() {
		// In the goroutine of the first request: one that connects must not hold up the others.
		ctx = context.WithValue(ctx, processKey{},
			sync.OnceValue(func() error { return checkProcess(u, int(cred.Pid), s.checkPeer) }))
	}
	return context.WithValue(ctx, uidKey{}, int(cred.Uid))
}

// isUser says why the user at the other end of a request gets nothing; nil: it is this one, or root.
func isUser(ctx context.Context) error {
	if uid, known := ctx.Value(uidKey{}).(int); !known || uid != os.Geteuid() && uid != 0 {
		return errdefs.Forbidden("this daemon belongs to another user")
	}
	return nil
}

// mayAsk says why the peer of a request gets nothing; nil: it may ask.
func mayAsk(ctx context.Context) error {
	if err := isUser(ctx); err != nil {
		return err
	}
	if check, ok := ctx.Value(processKey{}).(func() error); ok {
		return check()
	}
	return nil
}

// peerCredentials are those that the peer had when it connected (SO_PEERCRED).
func peerCredentials(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	closed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(closed, err)
}

// peerParent is the parent of the process that has sent a request, which lives, since it waits for the answer.
func peerParent(ctx context.Context) (pid int, err error) {
	c, ok := ctx.Value(fileConnKey{}).(*fileConn)
	if !ok {
		return 0, errdefs.Invalid("nobody knows who asks, and so neither whose parent holds the attachment")
	}
	cred, err := peerCredentials(c.UnixConn)
	if err != nil {
		return 0, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cred.Pid))
	if err != nil {
		return 0, fmt.Errorf("the process that asks: %w", err)
	}
	// The second field, the command's name in parentheses, may hold anything (proc_pid_stat(5)).
	var state string
	_, err = fmt.Sscan(string(status[bytes.LastIndexByte(status, ')')+1:]), &state, &pid)
	if err != nil || pid == 0 {
		return 0, errdefs.Invalid("the daemon does not see the parent of the process that asks")
	}
	return pid, nil
}

// Without descriptors nobody can be looked at. Requests wait for some, since connections give theirs back.
const (
	descriptorPatience = 5 * time.Second
	descriptorAgain    = 20 * time.Millisecond
)

// checkProcess is tryProcess, again for as long as this process or the machine has no descriptors left.
func checkProcess(c *net.UnixConn, pid int, check func(pid int) error) error {
	for deadline := time.Now().Add(descriptorPatience); ; time.Sleep(descriptorAgain) {
		err := tryProcess(c, pid, check)
		switch {
		case !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE):
			return err
		case time.Now().After(deadline):
			return errdefs.Unavailable("the daemon has no file descriptors left to see who asks (%w): try again, or start it "+
				"with a higher limit (ulimit -n)", err)
		}
	}
}

// tryProcess calls check with the pid of the process that has connected. A pid can be another process's by the time
// that it is looked at, so the process has to be alive afterwards: it is held by SO_PEERPIDFD where the kernel has that
// (Linux 6.5).
func tryProcess(c *net.UnixConn, pid int, check func(pid int) error) error {
	ended := errdefs.Forbidden("the process that has connected has ended, so that nobody knows who asks")
	pidfd, err := peerPidfd(c)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return check(pid)
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return err
	}
	if err != nil || pid <= 0 {
		return ended
	}
	defer func() { _ = unix.Close(pidfd) }()
	if err := check(pid); err != nil {
		return err
	}
	if events, err := sockio.Ready(pidfd, unix.POLLIN); err != nil || events != 0 { // it has ended (pidfd_open(2))
		return ended
	}
	return nil
}

// peerPidfd returns a descriptor of the process that has connected, which is the caller's.
func peerPidfd(c *net.UnixConn) (pidfd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	closed := raw.Control(func(fd uintptr) {
		pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if err = errors.Join(closed, err); err != nil {
		return -1, fmt.Errorf("process of the peer: %w", err)
	}
	return pidfd, nil
}
