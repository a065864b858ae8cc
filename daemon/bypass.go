package daemon

import (
	"context"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// bypassSockets gives an attachment the sockets that are made in its container's sandbox.
type bypassSockets struct{ *sandbox.Sockets }

var _ engine.SocketSource = bypassSockets{}

// Socket implements engine.SocketSource.
func (s bypassSockets) Socket(ctx context.Context, outbound, ipv6 bool) (fd int, err error) {
	use := sandbox.Publish
	if outbound {
		use = sandbox.Divert
	}
	return s.Take(ctx, use, ipv6)
}

// Prefill implements engine.SocketSource.
func (s bypassSockets) Prefill(ipv4, ipv6 bool) { s.Warm(sandbox.Publish, ipv4, ipv6) }

// Unanswered implements engine.SocketSource: a packet filter of the container's is in the way, or it has removed the rules, so
// that its connections take the way through the gateway for a while.
func (s bypassSockets) Unanswered() { s.Fail(sandbox.Divert) }

// socketsOf returns the stock of sockets of c's sandbox, making an empty one where there is none. The caller holds s.mu.
func (d *Daemon) socketsOf(s *sandboxState, c *network.Container) engine.SocketSource {
	if s.sockets == nil {
		s.sockets = d.cfg.Helper.Sockets(target(c), func(err error) {
			d.log.Debug("connections go through the gateway", "container", c.Name, "error", err)
		})
	}
	return bypassSockets{s.sockets}
}
