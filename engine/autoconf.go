package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/usernet/usernet/autoconf"
	vswitch "github.com/usernet/usernet/switch"
)

// dhcpPort is where DHCPv4 servers listen (RFC 2131 section 4.1).
const dhcpPort = 67

// maxDHCP is the largest DHCPv4 message that is read, in bytes: what an Ethernet packet holds.
const maxDHCP = 1500

// serveAutoconf configures attachments that ask for it, in the name of the gateway.
func (n *Network) serveAutoconf() error {
	if n.cfg.Autoconf == nil {
		return nil
	}
	cfg := *n.cfg.Autoconf
	cfg.Router = n.cfg.MAC
	srv, err := autoconf.New(cfg)
	if err != nil {
		return err
	}
	port, err := n.sw.Connect(vswitch.PortConfig{Name: "autoconf", MAC: srv.MAC(), Role: vswitch.Gateway}, srv)
	if err != nil {
		return err
	}
	srv.SetPort(port)
	ctx, cancel := context.WithCancel(context.Background())
	n.stopAutoconf = cancel
	n.serves.Go(func() { srv.Run(ctx) })
	if !cfg.Router4.IsValid() {
		return nil
	}
	pc, err := n.gw.ListenUDP(netip.AddrPortFrom(cfg.Router4, dhcpPort))
	if err != nil {
		return fmt.Errorf("DHCP: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = pc.Close() })
	n.serves.Go(func() { renewLeases(srv, pc) })
	return nil
}

// renewLeases answers DHCP messages that come to the gateway's own address, until pc is closed.
func renewLeases(srv *autoconf.Server, pc net.PacketConn) {
	buf := make([]byte, maxDHCP)
	for {
		size, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := srv.Renew(buf[:size]); reply != nil {
			_, _ = pc.WriteTo(reply, from) // a client that misses it asks again
		}
	}
}

// ownAutoconf makes the server of one attachment, whose answers go to its link and to nobody else; nil without cfg.
func (n *Network) ownAutoconf(cfg *autoconf.Config, link Link) (*autoconf.Server, error) {
	if cfg == nil {
		return nil, nil
	}
	own := *cfg
	own.Router = n.cfg.MAC
	srv, err := autoconf.New(own)
	if err != nil {
		return nil, err
	}
	srv.SetPort(toLink{link})
	return srv, nil
}

// toLink gives a link the frames of its own server.
type toLink struct{ Link }

// Receive implements autoconf.Output.
func (l toLink) Receive(f *vswitch.Frame) {
	_ = l.WriteFrame(f) // a guest that misses it asks again
}
