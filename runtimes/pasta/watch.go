package pasta

import (
	"context"

	"github.com/usernet/usernet/internal/nsend"
)

// watch returns what is closed when the namespace's process has ended or its path leads elsewhere, until ctx ends. The
// interface's descriptor holds the namespace itself, so that nothing else tells of its end.
func (o *Options) watch(ctx context.Context) (<-chan struct{}, error) {
	if o.QuitNever {
		return make(chan struct{}), nil
	}
	return nsend.Watch(ctx, o.target().NetNS, o.PID)
}
