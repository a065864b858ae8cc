package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/sandbox"
)

// optDirect is a network's option: false carries published ports through the gateway always.
const optDirect = "usernet.direct_ports"

// dialDirect connects to a container's own address, in a client's name, over a socket of the container's namespace.
func (g *segment) dialDirect(ctx context.Context, src, dst netip.AddrPort) (*forwarder.SocketConn, error) {
	s := g.owner(dst.Addr()).sockets
	if s == nil {
		return nil, forwarder.ErrNotDirect
	}
	fd, err := s.Take(dst.Addr().Is6())
	if err != nil {
		return nil, err
	}
	return forwarder.ConnectFrom(ctx, fd, src, dst)
}

// stock returns the stock of sockets for direct connections into c's sandbox, making an empty one where there is none.
// The caller holds s.mu.
func (d *Daemon) stock(s *sandboxState, c *network.Container, n *network.Network) *sandbox.Sockets {
	if !optionBool(n.Options, optDirect, !d.cfg.NoDirectPorts) {
		return nil
	}
	if s.sockets == nil {
		s.sockets = d.cfg.Doorman.Sockets(target(c))
	}
	return s.sockets
}
