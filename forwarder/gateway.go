package forwarder

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/forwarder/relay"
	"github.com/usernet/usernet/internal/packet"
)

// Gateway is the forwarder's side of a network: what answers and connects inside in the name of those outside. Its
// methods may be called by many goroutines at once. Package stack's is one, by way of a few lines in package engine.
type Gateway interface {
	// DialTCP connects to a container at dst in the name of src, of which port 0 is any. The error is EADDRINUSE where
	// there is a connection between the same two ends already.
	DialTCP(ctx context.Context, src, dst netip.AddrPort) (Conn, error)
	// WriteUDP sends a datagram to a container in the name of src. Its payload may be in pieces. A segment that is not
	// 0 makes it several, of that many bytes each; the last may be shorter. The payload is the caller's again when it
	// returns.
	WriteUDP(src, dst netip.AddrPort, payload [][]byte, segment int) error
	// WriteICMP sends a message in the name of src, and completes its checksum.
	WriteICMP(src, dst netip.Addr, message []byte) error
	// Owns says whether an address is the gateway's own, Contains whether it is in a subnet of the network.
	Owns(a netip.Addr) bool
	Contains(a netip.Addr) bool
}

// SYN is a container's wish for a connection. One of the methods that decide is called, once; all but Accept return at
// once.
type SYN interface {
	// Ends are the container's address and port, and those it wants to reach.
	Ends() (src, dst netip.AddrPort)
	// Seq is its sequence number: one that is sent again has the same.
	Seq() uint32
	// CanBypass says that another than the gateway may answer: the SYN has no data, and no options but those that all
	// kernels know.
	CanBypass() bool

	Accept() (Conn, error) // completes the handshake
	Bypassed()             // the container has its connection by another way than the gateway
	Refuse()               // a reset: "connection refused"
	Unreachable(host bool) // ICMP destination unreachable: the host's, or its network's
	Drop()                 // no answer: the container asks again
}

// Conn is a container's TCP connection, as the gateway terminates it.
type Conn = relay.Conn

// Handler is what a Forwarder does with what containers send beyond their network. HandleTCP waits for the destination;
// the others come from the goroutine that carries the container's frames.
type Handler interface {
	HandleTCP(SYN)
	HandleUDP(packet.Datagram) bool  // false: there is no such port
	HandleEcho(packet.Datagram) bool // the payload begins with the ICMP header
	Flush()                          // sends what was kept of datagrams with MorePending set
}

var _ Handler = (*Forwarder)(nil)
