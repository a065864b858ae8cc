package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder"
)

// TCP connections between attachments and those of other hosts may go from socket to socket, past the links and the
// switch. What the switch decides about frames is decided here about the connection: who may reach whom, and that
// attachments are who they say. The link that carries frames to other hosts asks first, and sends frames where the
// answer is no.

// PeerConn is a connection to another host that carries one between attachments.
type PeerConn = forwarder.PeerConn

// PeerRequest is a connection with an attachment of another host.
type PeerRequest struct {
	// From is the attachment that asks for the connection, To the other one. One of them is here.
	From, To netip.AddrPort
	// MAC is that of From, as its frame has it, where it is here.
	MAC    net.HardwareAddr
	Seq    uint32 // of From's SYN, where it is here
	Sealed bool   // Dial makes a stream
	// Dial makes the connection to the other host. It is called once.
	Dial func(context.Context) (PeerConn, error)
}

// ErrUnanswered says that the attachment is to send its SYN again.
var ErrUnanswered = forwarder.ErrUnanswered

// errNoPeer says that a connection has to go by frames.
var errNoPeer = errors.New("it goes by frames")

// ConnectPeer makes the connection that an attachment here asks for with a SYN. Nil is the SYN's end; with
// ErrUnanswered it is to be dropped, and with another error to go on as a frame.
func (n *Network) ConnectPeer(ctx context.Context, r PeerRequest) error {
	a := n.byAddr(r.From.Addr())
	if a == nil || !bytes.Equal(a.cfg.MAC, r.MAC) {
		return fmt.Errorf("%w: another attachment has the address", errNoPeer)
	}
	if err := n.peerBar(a, true); err != nil {
		return err
	}
	return n.fwd.ConnectPeer(ctx, n.peer(r, r.From, r.To))
}

// AcceptPeer connects an attachment of another host, of which that host is known to be the one, to one here.
func (n *Network) AcceptPeer(ctx context.Context, r PeerRequest) error {
	if err := n.peerBar(n.byAddr(r.To.Addr()), false); err != nil {
		return err
	}
	if err := n.mayConnect(r.From, r.To); err != nil {
		return err // before the attachment hears of it
	}
	return n.fwd.AcceptPeer(ctx, n.peer(r, r.To, r.From))
}

func (n *Network) peer(r PeerRequest, inside, outside netip.AddrPort) forwarder.Peer {
	return forwarder.Peer{
		Inside:  inside,
		Outside: outside,
		Seq:     r.Seq,
		Sealed:  r.Sealed,
		Allowed: func() error { return n.mayConnect(r.From, r.To) },
		Dial:    r.Dial,
	}
}

// peerBar is the error where no connection of an attachment, which may be nil, with one of another host goes from
// socket to socket.
func (n *Network) peerBar(a *Attachment, outbound bool) error {
	if why := n.noPeer(a, outbound); why != "" {
		return fmt.Errorf("%w: %s", errNoPeer, why)
	}
	return nil
}

func (n *Network) noPeer(a *Attachment, outbound bool) string {
	why := n.bypassBar(a, outbound)
	switch {
	case why != "":
	case n.cfg.Isolated:
		why = "attachments reach each other only as links say"
	case a.cfg.VLAN != 0:
		why = "it is in a VLAN"
	case a.cfg.Filter != nil:
		why = "its frames are filtered"
	}
	return why
}

// NoPeer says why no connection that the attachment with an address begins with one of another host goes from socket to
// socket; "": they may.
func (n *Network) NoPeer(from netip.Addr) string { return n.noPeer(n.byAddr(from), true) }

// mayConnect says why one attachment may not connect to the other; nil: it may.
func (n *Network) mayConnect(from, to netip.AddrPort) error {
	if rules := n.neighbours.Load(); rules != nil {
		return rules.Opening(from, to, unix.IPPROTO_TCP)
	}
	return nil
}

// EndPeers ends the connections from socket to socket that the rules about attachments allow no longer, and those with
// an attachment of another host that is there no longer, which there says; nil: all are there.
func (n *Network) EndPeers(there func(netip.Addr) bool) {
	n.fwd.EndPeers(func(from, to netip.AddrPort, outside netip.Addr) bool {
		return there != nil && !there(outside) || n.mayConnect(from, to) != nil
	})
}
