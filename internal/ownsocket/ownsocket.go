// Package ownsocket makes Unix sockets that one user alone may connect to: those of the daemon's API and of the
// programs that speak for it.
//
// The one idea: what is at a socket's path already is looked at before it is removed. connect(2) refuses a connection
// to a file as it does one to a socket that nobody serves, so a refusal alone does not say that a program has left it
// there.
package ownsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrServed is returned where another program serves the socket.
var ErrServed = errors.New("another program answers there")

// Listen listens at path. A socket that a program has left there is replaced; one that answers, and what is no socket,
// stays, and is an error.
func Listen(path string) (net.Listener, error) {
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrServed)
	case errors.Is(err, unix.ECONNREFUSED):
		if err := Remove(path); err != nil {
			return nil, err
		}
	}
	// The file that bind(2) makes has the mode of the descriptor (unix_bind_bsd in the kernel's net/unix/af_unix.c), so
	// that there is no moment in which others may connect.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	return private.Listen(context.Background(), "unix", path)
}

// Remove removes the socket at path, where there is one. What is no socket stays, and is an error.
func Remove(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%s is there and is no socket: choose another path, or move it away", path)
	}
	return os.Remove(path)
}
