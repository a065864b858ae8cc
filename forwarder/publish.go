package forwarder

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/forwarder/publish"
)

var _ publish.Handler = (*Forwarder)(nil)

// Publish binds all of what bindings ask for and leads it to the container at in4 and in6, or with an error none. The
// error of a port that cannot be had is a publish.BindError.
func (f *Forwarder) Publish(
	ctx context.Context, in4, in6 netip.Addr, bindings []publish.Binding,
) ([]publish.Bound, error) {
	return f.publisher.Publish(ctx, in4, in6, bindings)
}

// Unpublish closes published ports. Connections through them go on.
func (f *Forwarder) Unpublish(list []publish.Bound) error { return f.publisher.Unpublish(list) }
