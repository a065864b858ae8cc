package dashboard

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// Source is the daemon as far as the page needs it; *api.Client is one.
type Source interface {
	Sample(ctx context.Context) (*api.Sample, error)
	NetworkRecords(ctx context.Context) ([]*network.Network, error)
	ContainerRecords(ctx context.Context) ([]*network.Container, error)

	NetworkConnect(ctx context.Context, ref, container string, spec network.EndpointSpec) error
	NetworkDisconnect(ctx context.Context, ref, container string, force bool) error
	PortsAdd(ctx context.Context, ref string, ports []network.PortBinding) ([]api.Published, error)
	PortsRemove(ctx context.Context, ref string, ports []network.PortBinding) error
	CloseFlow(ctx context.Context, f api.Flow) error
}

type attachment struct {
	Container string `json:"container"`
	Network   string `json:"network"`
}

type port struct {
	Container string `json:"container"`
	Port      string `json:"port"` // as run -p takes it
}

type bound struct {
	Container string `json:"container"`
	api.Published
}

type ends struct {
	Proto   string         `json:"proto"`
	Inside  netip.AddrPort `json:"inside"`
	Outside netip.AddrPort `json:"outside"`
}

// operations are all that the page can do.
func (s *Server) operations() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"connect": operation(func(ctx context.Context, q attachment) error {
			return s.src.NetworkConnect(ctx, q.Network, q.Container, network.EndpointSpec{})
		}),
		"disconnect": operation(func(ctx context.Context, q attachment) error {
			return s.src.NetworkDisconnect(ctx, q.Network, q.Container, false)
		}),
		"publish": operation(func(ctx context.Context, q port) error {
			list, err := network.ParsePorts([]string{q.Port})
			if err != nil {
				return err
			}
			_, err = s.src.PortsAdd(ctx, q.Container, list)
			return err
		}),
		"unpublish": operation(func(ctx context.Context, q bound) error {
			return s.src.PortsRemove(ctx, q.Container, []network.PortBinding{q.Binding()})
		}),
		"close": operation(func(ctx context.Context, q ends) error {
			return s.src.CloseFlow(ctx, api.Flow{Proto: q.Proto, Inside: q.Inside, Outside: q.Outside})
		}),
	}
}

// operation makes a handler of a function of the body.
func operation[In any](f func(context.Context, In) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body In
		if !readBody(w, r, &body) {
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callLimit)
		defer cancel()
		if err := f(ctx, body); err != nil {
			fail(w, err)
			return
		}
		sendJSON(w, http.StatusOK, struct{}{})
	}
}
