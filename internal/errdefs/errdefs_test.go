package errdefs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/usernet/usernet/internal/errdefs"
)

var makers = []struct {
	make  func(format string, args ...any) error
	class error
	is    func(error) bool // what others test with
}{
	{errdefs.Internal, errdefs.ErrInternal, cerrdefs.IsInternal},
	{errdefs.Invalid, errdefs.ErrInvalid, cerrdefs.IsInvalidArgument},
	{errdefs.NotFound, errdefs.ErrNotFound, cerrdefs.IsNotFound},
	{errdefs.Conflict, errdefs.ErrConflict, cerrdefs.IsConflict},
	{errdefs.Forbidden, errdefs.ErrForbidden, cerrdefs.IsPermissionDenied},
	{errdefs.Unavailable, errdefs.ErrUnavailable, cerrdefs.IsUnavailable},
	{errdefs.NotImplemented, errdefs.ErrNotImplemented, cerrdefs.IsNotImplemented},
}

// TestErrorsHaveTextClassAndCause makes each kind around each other kind: the outer class counts, and the cause is
// found.
func TestErrorsHaveTextClassAndCause(t *testing.T) {
	for _, outer := range makers {
		for _, inner := range makers {
			err := outer.make("port %d: %w", 80, inner.make("in use: %w", fs.ErrExist))
			wrapped := fmt.Errorf("web: %w", err)
			switch {
			case err.Error() != "port 80: in use: "+fs.ErrExist.Error():
				t.Errorf("text %q", err)
			case errdefs.Class(err) != outer.class || errdefs.Class(wrapped) != outer.class:
				t.Errorf("class %v of %v in %v", errdefs.Class(wrapped), inner.class, outer.class)
			case !outer.is(wrapped):
				t.Errorf("%v is not what others test for", outer.class)
			case !errors.Is(wrapped, fs.ErrExist):
				t.Errorf("the cause of %v is lost", outer.class)
			case !errdefs.Classified(wrapped):
				t.Errorf("%v has no class", wrapped)
			}
		}
	}
}

func TestOtherErrorsHaveNoClass(t *testing.T) {
	for _, err := range []error{nil, fs.ErrExist, fmt.Errorf("asked: %w", context.Canceled)} {
		if errdefs.Classified(err) {
			t.Errorf("%v has class %v", err, errdefs.Class(err))
		}
	}
}
