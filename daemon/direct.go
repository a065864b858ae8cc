package daemon

import (
	"context"
	"net/netip"
	"time"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// Options of a network: false carries published ports, or connections to the outside, through the gateway always.
const (
	optDirect   = "usernet.direct_ports"
	optFastPath = "usernet.fast_path"
)

// socketWait is how long a container's first connection waits for sockets of its sandbox, which is entered in some 20 ms.
const socketWait = 200 * time.Millisecond

// socket returns a socket of the network namespace of the container at an address.
func (g *segment) socket(ctx context.Context, container netip.Addr, outbound bool) (fd int, err error) {
	use, possible := sandbox.Publish, g.direct
	if outbound {
		use, possible = sandbox.Divert, g.fastPath
	}
	s := g.owner(container).sockets
	if s == nil || !possible {
		return -1, forwarder.ErrNotDirect
	}
	if ctx.Err() == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, socketWait)
		defer cancel()
	}
	return s.Take(ctx, use, container.Is6())
}

// noAnswer leaves the fast path for a while: a packet filter of the container's is in the way, or it has removed the rules.
func (g *segment) noAnswer(container netip.Addr) {
	if s := g.owner(container).sockets; s != nil {
		s.Fail(sandbox.Divert)
	}
}

// stock returns the stock of sockets for direct connections into c's sandbox, making an empty one where there is none.
// The caller holds s.mu.
func (d *Daemon) stock(s *sandboxState, c *network.Container) *sandbox.Sockets {
	if s.sockets == nil {
		s.sockets = d.cfg.Doorman.Sockets(target(c), func(err error) {
			d.log.Debug("connections go through the gateway", "container", c.Name, "error", err)
		})
	}
	return s.sockets
}
