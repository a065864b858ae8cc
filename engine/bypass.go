package engine

import (
	"context"
	"net/netip"
	"time"

	"github.com/usernet/usernet/forwarder"
)

// socketWait is how long an attachment's first connection waits for sockets of its namespace, which is entered in some
// 20 ms.
const socketWait = 200 * time.Millisecond

// bypassSocket returns a socket of the network namespace of the attachment with an address.
func (n *Network) bypassSocket(
	ctx context.Context, inside netip.Addr, outside netip.AddrPort, outbound bool,
) (fd int, err error) {
	if inside.IsLoopback() && n.cfg.LoopbackSocket != nil {
		return n.cfg.LoopbackSocket(ctx, inside.Is6())
	}
	a := n.byAddr(inside)
	switch {
	case a == nil || a.cfg.Sockets == nil:
		return -1, forwarder.ErrNoBypass
	case outbound && n.cfg.NoOutboundBypass, !outbound && n.cfg.NoInboundBypass:
		return -1, forwarder.ErrNoBypass
	}
	if ctx.Err() == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, socketWait)
		defer cancel()
	}
	return a.cfg.Sockets.Socket(ctx, outside, outbound, inside.Is6())
}

// bypassOutcome reports to the source of an outbound socket whether the attachment answered on it. It does not where a
// filter of its own is in the way, or it has removed the rules.
func (n *Network) bypassOutcome(inside netip.Addr, outside netip.AddrPort, answered bool) {
	a := n.byAddr(inside)
	switch {
	case a == nil || a.cfg.Sockets == nil:
	case answered:
		a.cfg.Sockets.Answered(outside)
	default:
		a.cfg.Sockets.Unanswered(outside)
	}
}
