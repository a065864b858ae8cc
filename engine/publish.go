package engine

import (
	"context"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/forwarder/publish"
)

// Publication asks for published ports of an attachment.
type Publication struct {
	// IPv4 and IPv6 are the inside addresses that connections are led to; an invalid one: none of this family. Both
	// invalid: the attachment's first address of each family.
	IPv4, IPv6 netip.Addr
	Ports      []publish.Binding
}

// Publish binds ports on the host and leads what comes to them to the attachment: all of them, or with an error none.
func (n *Network) Publish(ctx context.Context, a *Attachment, p Publication) ([]publish.Bound, error) {
	if !p.IPv4.IsValid() && !p.IPv6.IsValid() {
		p.IPv4, p.IPv6 = a.firstAddrs()
	}
	bound, err := n.fwd.Publish(ctx, p.IPv4, p.IPv6, p.Ports)
	if err != nil {
		return nil, err
	}
	tcp := slices.ContainsFunc(p.Ports, func(b publish.Binding) bool { return b.Proto == publish.TCP })
	if tcp && a.cfg.Sockets != nil && !n.cfg.NoInboundBypass {
		a.cfg.Sockets.PrefillInbound(p.IPv4.IsValid(), p.IPv6.IsValid())
	}
	return bound, nil
}

// Unpublish closes ports that Publish has bound.
func (n *Network) Unpublish(list []publish.Bound) error { return n.fwd.Unpublish(list) }

// firstAddrs are the attachment's first address of each family, link-local ones left out.
func (a *Attachment) firstAddrs() (v4, v6 netip.Addr) {
	for _, addr := range *a.addrs.Load() {
		switch {
		case addr.IsLinkLocalUnicast():
		case addr.Is4() && !v4.IsValid():
			v4 = addr
		case addr.Is6() && !v6.IsValid():
			v6 = addr
		}
	}
	return v4, v6
}
