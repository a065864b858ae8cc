package daemon

import (
	"context"

	"github.com/usernet/usernet/sandbox"
)

// sandboxes is how the daemon enters sandboxes and looks at their namespaces. *sandbox.Helper implements it, also when
// it is nil; a fake in tests returns its own descriptors as TAPs.
type sandboxes interface {
	// Configure carries out a request in a sandbox, and returns what came out of it, which is the caller's.
	Configure(ctx context.Context, t sandbox.Target, r sandbox.Request) (*sandbox.Reply, error)
	// Namespace says which namespace is at a path; os.ErrNotExist where there is none.
	Namespace(path string) (dev, ino uint64, err error)
	// Namespaces are those that a process is in.
	Namespaces(pid int) (sandbox.Namespaces, error)
}

var _ sandboxes = (*sandbox.Helper)(nil)
