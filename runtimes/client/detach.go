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
	DetachLater(key string) error
}

var errHangs = errors.New("the usernet daemon does not answer")

// Detach ends the attachment that was made with key, for a runtime that removes a container. A daemon that has ended is
// a warning on warnings, and no error: a runtime would keep the container for it. The next daemon ends the attachment.
//
// A daemon that is there and does not answer, or refuses, is an error.
func Detach(ctx context.Context, d Detacher, key string, warnings io.Writer) error {
	err := detach(ctx, d, key)
	if !absent(err) {
		return err
	}
	return later(d, key, err, "the next daemon", warnings)
}

// DetachOrLater is Detach for a runtime that removes the container even where this fails, and asks for nothing again: a
// daemon that does not answer is a warning, too, and ends the attachment when it does.
func DetachOrLater(ctx context.Context, d Detacher, key string, warnings io.Writer) error {
	err := detach(ctx, d, key)
	switch {
	case absent(err):
		return later(d, key, err, "the next daemon", warnings)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, api.ErrDaemonSilent):
		return later(d, key, errHangs, "once it answers it", warnings)
	}
	return err
}

func detach(ctx context.Context, d Detacher, key string) error {
	err := d.Detach(ctx, key)
	if errors.Is(err, api.ErrDaemonEnded) { // in the middle: another one may have taken its place
		err = d.Detach(ctx, key)
	}
	return err
}

// later leaves word for the daemon, and warns. Where that is not possible and a daemon is there, err is the result; one
// that is not there drops the attachment when it starts, if its namespace is gone.
func later(d Detacher, key string, err error, who string, warnings io.Writer) error {
	condition := ""
	if left := d.DetachLater(key); left != nil {
		if !absent(err) {
			return errors.Join(err, left)
		}
		condition = ", if its namespace is gone"
	}
	// A runtime that closed the stream wants no warnings.
	_, _ = fmt.Fprintf(warnings, "usernet: warning: %v; %s drops %s%s\n", err, who, key, condition)
	return nil
}

// absent says whether no daemon is there: nothing listens at the socket, or there is none. One that is there and cannot
// be reached, since its queue is full or the socket is another user's, is not absent.
func absent(err error) bool {
	return errors.Is(err, api.ErrNoDaemon) &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED))
}
