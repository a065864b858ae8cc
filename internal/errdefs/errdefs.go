// Package errdefs makes errors with a class, by which a caller decides what to do: the API maps it to an HTTP status.
//
// # The central idea
//
// The classes are those of github.com/containerd/errdefs, which Docker's client and daemon have too, so that a caller
// of package api tests for them as for Docker's: errdefs.IsNotFound(err). What this package adds is an error whose text
// is shown to the user as it is, and that wraps its cause as fmt.Errorf does. Where a cause has a class of its own, the
// outer class counts.
//
//	return errdefs.NotFound("network %s not found", name)
//	return errdefs.Invalid("invalid port %q: %w", s, err)
//
// All packages that check what a user asks for call it. It knows no HTTP and prints nothing.
package errdefs

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// The classes, as Class returns them.
var (
	ErrInternal       error = errdefs.ErrInternal         // something of this machine or program failed
	ErrInvalid        error = errdefs.ErrInvalidArgument  // the request itself is wrong
	ErrNotFound       error = errdefs.ErrNotFound         // what the request is about is not there
	ErrConflict       error = errdefs.ErrConflict         // it is not in a state for that, or its name is taken
	ErrForbidden      error = errdefs.ErrPermissionDenied // the rules do not allow it, whatever the state
	ErrUnavailable    error = errdefs.ErrUnavailable      // a limit is reached, or the machine lacks something
	ErrNotImplemented error = errdefs.ErrNotImplemented   // usernet does not do that
)

// classified is an error with a class.
type classified struct {
	class error
	err   error // has the text and wraps the cause
}

func (c *classified) Error() string { return c.err.Error() }

// Unwrap has the class first, since the first one that is found counts.
func (c *classified) Unwrap() []error { return []error{c.class, c.err} }

// Class returns the class of err: the outermost where causes have others. An error without one has ErrUnknown of
// github.com/containerd/errdefs, or is a context's; nil has none.
func Class(err error) error { return errdefs.Resolve(err) }

// Classified says whether err has one of the classes above.
func Classified(err error) bool {
	switch Class(err) {
	case ErrInternal, ErrInvalid, ErrNotFound, ErrConflict, ErrForbidden, ErrUnavailable, ErrNotImplemented:
		return true
	}
	return false
}

// Internal makes an error of class ErrInternal.
func Internal(format string, args ...any) error {
	return &classified{ErrInternal, fmt.Errorf(format, args...)}
}

// Invalid makes an error of class ErrInvalid.
func Invalid(format string, args ...any) error {
	return &classified{ErrInvalid, fmt.Errorf(format, args...)}
}

// NotFound makes an error of class ErrNotFound.
func NotFound(format string, args ...any) error {
	return &classified{ErrNotFound, fmt.Errorf(format, args...)}
}

// Conflict makes an error of class ErrConflict.
func Conflict(format string, args ...any) error {
	return &classified{ErrConflict, fmt.Errorf(format, args...)}
}

// Forbidden makes an error of class ErrForbidden.
func Forbidden(format string, args ...any) error {
	return &classified{ErrForbidden, fmt.Errorf(format, args...)}
}

// Unavailable makes an error of class ErrUnavailable.
func Unavailable(format string, args ...any) error {
	return &classified{ErrUnavailable, fmt.Errorf(format, args...)}
}

// NotImplemented makes an error of class ErrNotImplemented.
func NotImplemented(format string, args ...any) error {
	return &classified{ErrNotImplemented, fmt.Errorf(format, args...)}
}
