package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
)

// socketPool gives an attachment the sockets that are made in its container's sandbox.
type socketPool struct{ *bypass.Pool }

var _ engine.SocketSource = socketPool{}

// Socket implements engine.SocketSource.
func (p socketPool) Socket(ctx context.Context, outside netip.AddrPort, outbound, ipv6 bool) (fd int, err error) {
	if !outbound {
		return p.Get(ctx, bypass.Inbound, ipv6)
	}
	if p.Avoids(outside) {
		return -1, bypass.ErrNoSocket
	}
	return p.Get(ctx, bypass.Outbound, ipv6)
}

// Prefill implements engine.SocketSource.
func (p socketPool) Prefill(ipv4, ipv6 bool) { p.Pool.Prefill(bypass.Inbound, ipv4, ipv6) }

// socketsOf returns the pool of sockets of c's sandbox, making an empty one where there is none. The caller holds s.mu.
func (d *Daemon) socketsOf(s *containerRuntime, c *network.Container) engine.SocketSource {
	if s.sockets == nil {
		s.sockets = bypass.New(bypass.InSandbox(d.cfg.Helper, d.target(c)), func(err error) {
			d.log.Debug("connections go through the gateway", "container", c.Name, "error", err)
		})
	}
	return socketPool{s.sockets}
}
