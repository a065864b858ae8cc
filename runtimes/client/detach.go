package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/usernet/usernet/api"
)

// Detacher is what Detach needs of the daemon; *api.Client has it.
type Detacher interface {
	Detach(ctx context.Context, key string) error
}

// Detach ends the attachment that was made with key, for a runtime that removes a container. A daemon that has ended is
// a warning on warnings, and no error: a runtime would keep the container for it. Its interface has gone with the
// daemon, and the next daemon drops the attachment when it finds no namespace for it. An attachment whose namespace
// goes on, as after `podman network disconnect`, is taken up again by that daemon.
//
// A daemon that is there and does not answer, or refuses, is an error.
func Detach(ctx context.Context, d Detacher, key string, warnings io.Writer) error {
	err := d.Detach(ctx, key)
	if errors.Is(err, api.ErrDaemonEnded) { // in the middle: another one may have taken its place
		err = d.Detach(ctx, key)
	}
	if !absent(err) {
		return err
	}
	// A runtime that closed the stream wants no warnings.
	_, _ = fmt.Fprintf(warnings, "usernet: warning: %v; the next daemon drops %s, if its namespace is gone\n", err, key)
	return nil
}

// absent says whether no daemon is there: nothing listens at the socket, or there is none. One that is there and cannot
// be reached, since its queue is full or the socket is another user's, is not absent.
func absent(err error) bool {
	return errors.Is(err, api.ErrNoDaemon) &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED))
}
