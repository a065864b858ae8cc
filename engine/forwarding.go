package engine

import (
	"context"
	"errors"
	"net/netip"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/policy"
	"github.com/usernet/usernet/stack"
	vswitch "github.com/usernet/usernet/switch"
)

// This file joins a gateway and a forwarder, neither of which knows the other, and answers the forwarder's questions
// about attachments: where they may connect, and by which sockets.

// insideGateway is netstack's gateway as the forwarder wants one. Neither package knows the other.
type insideGateway struct{ *stack.Gateway }

var _ forwarder.Gateway = insideGateway{}

// DialTCP implements forwarder.Gateway.
func (g insideGateway) DialTCP(ctx context.Context, src, dst netip.AddrPort) (forwarder.Conn, error) {
	c, err := g.Gateway.DialTCP(ctx, src, dst)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// outsideHandler is a forwarder as netstack's gateway wants its handler.
type outsideHandler struct{ *forwarder.Forwarder }

var _ stack.Handler = outsideHandler{}

// HandleTCP implements stack.Handler.
func (h outsideHandler) HandleTCP(r *stack.TCPRequest) { h.Forwarder.HandleTCP(insideSYN{r}) }

// insideSYN is a SYN as the forwarder decides about it.
type insideSYN struct{ *stack.TCPRequest }

// Accept implements forwarder.SYN.
func (s insideSYN) Accept() (forwarder.Conn, error) {
	c, err := s.TCPRequest.Accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// allow says why an inside address may not send to dst; nil where it may. proto is that of the IP header.
func (n *Network) allow(inside netip.Addr, proto uint8, dst netip.AddrPort) error {
	p := n.policyOf(inside, dst.Addr())
	if p == nil {
		return nil
	}
	return p.Decide(proto, dst)
}

// policyOf is the policy for what an inside address sends to dst; nil: all of it may.
func (n *Network) policyOf(inside, dst netip.Addr) *policy.Policy {
	if n.cfg.HideClients && n.gw.Owns(dst) {
		return nil // a link-local address that is the host's alone: rules are about others
	}
	if a := n.byAddr(inside); a != nil {
		if p := a.policy.Load(); p != nil {
			return p
		}
	}
	return n.policy.Load()
}

// refused notes what an inside address was refused. Addresses that lead nowhere on any network, such as groups, are
// left out: nobody waits for an answer from there.
func (n *Network) refused(inside netip.Addr, proto uint8, dst netip.AddrPort, why error) {
	var rule *policy.Refusal
	switch {
	case errors.As(why, &rule):
		why = rule
	case errors.Is(why, forwarder.ErrInternal) && dst.Addr().IsGlobalUnicast(),
		errors.Is(why, forwarder.ErrOtherNetwork), errors.Is(why, forwarder.ErrLoopbackClosed):
	default:
		return
	}
	id, name := n.Owner(inside)
	n.refusals.add(id, Refusal{Container: name, Proto: proto, Destination: dst, Why: why})
	if rule != nil && n.refusalLog.next() {
		n.log.Info("egress refused",
			"container", name, "inside", inside, "protocol", proto, "destination", dst, "rule", rule)
	}
}

// mayReachHostLoopback says whether an inside address may reach the host's loopback.
func (n *Network) mayReachHostLoopback(inside netip.Addr) bool {
	if n.cfg.HostLoopback {
		return true
	}
	a := n.byAddr(inside)
	return a != nil && a.cfg.HostLoopback
}

// bypassSocket returns a socket of the network namespace of the attachment with an address.
func (n *Network) bypassSocket(
	ctx context.Context, inside netip.Addr, outside netip.AddrPort, outbound bool,
) (fd int, err error) {
	if inside.IsLoopback() && n.cfg.LoopbackSocket != nil {
		return n.cfg.LoopbackSocket(ctx, inside.Is6())
	}
	a := n.byAddr(inside)
	if n.bypassBar(a, outbound) != "" {
		return -1, forwarder.ErrNoBypass
	}
	return a.cfg.Sockets.Socket(ctx, outside, outbound, inside.Is6())
}

// bypassBar says why no connection of an attachment, which may be nil, bypasses its link; "": they may.
func (n *Network) bypassBar(a *Attachment, outbound bool) string {
	switch {
	case a == nil:
		return "no container has the address"
	case a.cfg.Sockets == nil:
		return "there are no sockets of its namespace: it is a virtual machine, its interface is elsewhere, or has a bandwidth limit"
	case outbound && n.cfg.NoOutboundBypass, !outbound && n.cfg.NoInboundBypass:
		return "the bypass is switched off on this network"
	case n.captured(a):
		return "a capture of its packets runs"
	}
	return ""
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

// A Router takes a frame for the gateway to where else its destination is, and says whether it did. It asks allow
// whether the sender may send there. It must neither wait nor keep the frame.
type Router func(f *vswitch.Frame, allow func(src netip.Addr, proto uint8, dst netip.AddrPort) bool) bool

// SetRouter has r see what is for the gateway first; nil: nobody does.
func (n *Network) SetRouter(r Router) {
	if r == nil {
		n.gw.SetDetour(nil)
		return
	}
	n.gw.SetDetour(func(f *vswitch.Frame) bool { return r(f, n.mayRoute) })
}

// mayRoute says whether an attachment may send to an address that is reached by the Router. What it may not, the
// gateway refuses as it does all else.
func (n *Network) mayRoute(src netip.Addr, proto uint8, dst netip.AddrPort) bool {
	a := dst.Addr()
	return !n.cfg.Internal && !n.gw.Owns(a) && !n.shared.IsInside(a) && n.allow(src, proto, dst) == nil
}
