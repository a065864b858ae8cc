package engine

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/stack"
)

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
