package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/daemon"
	"github.com/usernet/usernet/forwarder"
)

// passed is what the service manager has passed besides the API's listener.
type passed struct {
	sockets   []int             // for published ports, from socket units
	published []int             // of published ports, which an earlier daemon had it keep
	sandboxes []api.SandboxFile // of sandboxes, likewise
	names     []string          // of all that is kept
}

// isPort tells the two kinds of what is kept apart.
func isPort(name string) bool { return strings.HasPrefix(name, forwarder.KeptPrefix) }

// activated returns what the service manager has passed (sd_listen_fds(3)): the API's listener, where one of the sockets
// is a Unix one, and the others.
func activated() (l net.Listener, p passed, err error) {
	for _, f := range activation.Files(true) {
		sandbox, kept := daemon.ParseKept(f.Name())
		if !kept && l == nil {
			if l = unixListener(f); l != nil {
				_ = f.Close()
				continue
			}
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, p, fmt.Errorf("socket %s from the service manager: %w", f.Name(), err)
		}
		_ = f.Close()
		switch {
		case kept:
			sandbox.FD = fd
			p.sandboxes = append(p.sandboxes, sandbox)
		case isPort(f.Name()):
			p.published = append(p.published, fd)
		default:
			p.sockets = append(p.sockets, fd)
			continue
		}
		p.names = append(p.names, f.Name())
	}
	return l, p, nil
}

// unixListener returns the listener that f is; nil where it is something else.
func unixListener(f *os.File) net.Listener {
	l, err := net.FileListener(f)
	if err != nil {
		return nil
	}
	if u, ok := l.(*net.UnixListener); ok {
		return u
	}
	_ = l.Close() // a copy
	return nil
}
