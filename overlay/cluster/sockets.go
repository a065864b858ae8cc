package cluster

import (
	"context"
	"errors"
	"net/netip"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/overlay/fabric"
)

// sockets makes the ends of a network's connections from socket to socket, by its engine.
type sockets struct{ engine *engine.Network }

var _ fabric.Sockets = sockets{}

// Connect implements fabric.Sockets.
func (s sockets) Connect(ctx context.Context, c fabric.Connection) error {
	err := s.engine.ConnectPeer(ctx, request(c))
	if errors.Is(err, engine.ErrUnanswered) {
		return errors.Join(fabric.ErrDropSYN, err)
	}
	return err
}

// Accept implements fabric.Sockets.
func (s sockets) Accept(ctx context.Context, c fabric.Connection) error {
	return s.engine.AcceptPeer(ctx, request(c))
}

// NoSockets says why connections from a container of this host to one of another host go in frames, on a network that
// is to have them go from socket to socket; "": they go so, unless the other host refuses.
func (c *Cluster) NoSockets(id string, from, to netip.Addr) string {
	j := c.joinedNetworks()[id]
	if j == nil {
		return "the network does not run here"
	}
	if why := j.engine.NoPeer(from); why != "" {
		return why
	}
	return j.link.NoSockets(to)
}

// request is a connection in the engine's words.
func request(c fabric.Connection) engine.PeerRequest {
	return engine.PeerRequest{
		From:   c.From,
		To:     c.To,
		MAC:    c.MAC[:],
		Seq:    c.Seq,
		Sealed: c.Sealed,
		Dial: func(ctx context.Context) (engine.PeerConn, error) {
			conn, err := c.Dial(ctx)
			if err != nil {
				return engine.PeerConn{}, err
			}
			p := engine.PeerConn{Local: conn.LocalAddr()}
			if conn.Sealed() {
				p.Stream = conn
				return p, nil
			}
			p.FD, err = conn.Release()
			return p, err
		},
	}
}

// endPeers ends a network's connections from socket to socket with containers that are on no other host any more.
func (j *joined) endPeers(entries []fabric.Entry) {
	there := map[netip.Addr]bool{}
	for _, e := range entries {
		for _, a := range e.Addrs {
			there[a] = true
		}
	}
	j.engine.EndPeers(func(a netip.Addr) bool { return there[a] })
}
