package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
)

// BindError says why a host port could not be had; its text is Docker's, and what to do.
type BindError struct {
	Host  netip.AddrPort
	Proto ports.Protocol
	Need  int // how many sockets the whole of what was asked for needs
	Err   error
	// Standalone: the process that binds is no daemon, and systemd passes it no sockets.
	Standalone bool
}

// Error is the text for the user.
func (e *BindError) Error() string {
	text := fmt.Sprintf("Bind for %s failed: ", e.Host)
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return text + "port is already allocated"
	case errors.Is(e.Err, syscall.EACCES):
		text += fmt.Sprintf("permission denied: ports below net.ipv4.ip_unprivileged_port_start are not "+
			"for this user; use a higher port, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%d", e.Host.Port())
		if e.Standalone {
			return text
		}
		return text + fmt.Sprintf(", or have systemd pass the daemon a socket (ListenStream=%s)", e.Host)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return text + "the host does not have this address"
	case errors.Is(e.Err, syscall.EMFILE):
		limit := sockio.FileLimit()
		who := "the daemon"
		if e.Standalone {
			who = "this process"
		}
		return text + fmt.Sprintf("%s may have no more than %d open files and this needs %d for ports alone: "+
			"raise the hard limit (RLIMIT_NOFILE; ulimit -Hn, LimitNOFILE= of systemd) to at least %d before it starts",
			who, limit, e.Need, uint64(e.Need)+limit)
	case errors.Is(e.Err, syscall.ENFILE):
		return text + "the machine has no more open files: raise the sysctl fs.file-max"
	}
	return text + e.Err.Error()
}

// TopicOf is the topic of the error (package errdefs).
func (e *BindError) TopicOf() errdefs.Topic {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return errdefs.TopicPortTaken
	case errors.Is(e.Err, syscall.EACCES):
		return errdefs.TopicPortLow
	case errors.Is(e.Err, syscall.EMFILE), errors.Is(e.Err, syscall.ENFILE):
		return errdefs.TopicFiles
	}
	return errdefs.TopicPortBind
}

// Unwrap is the cause.
func (e *BindError) Unwrap() error { return e.Err }
