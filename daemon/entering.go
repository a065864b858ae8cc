package daemon

import (
	"context"

	"github.com/usernet/usernet/sandbox"
)

// sandboxes is what the daemon does in and about sandboxes. *sandbox.Helper is the real one, also when it is nil; a test's gives
// out descriptors of its own for TAPs.
type sandboxes interface {
	// Configure carries out a request in a sandbox, and returns what came out of it, which is the caller's.
	Configure(ctx context.Context, t sandbox.Target, r sandbox.Request) (*sandbox.Reply, error)
	// Namespace says which namespace is at a path; os.ErrNotExist where there is none.
	Namespace(path string) (dev, ino uint64, err error)
	// Namespaces are those that a process is in.
	Namespaces(pid int) (sandbox.Namespaces, error)
}

var _ sandboxes = (*sandbox.Helper)(nil)
