package fabric

// Reason says why a frame or datagram was dropped.
type Reason uint8

// The reasons. Up to DropUnknownVNI there is no network, so the fabric counts them; the others are counted by the link.
const (
	DropNotVXLAN    Reason = iota // a datagram that is none of what is spoken at this port
	DropUnknownPeer               // from an address that is no peer's
	DropUnknownVNI                // of a network that is not on this host
	DropPlain                     // a plain frame of a sealed network
	DropSealed                    // a sealed frame of a plain network
	DropNotReady                  // the network has no switch port yet, or no more
	DropMalformed                 // an inner header that is cut short or contradicts itself
	DropVLAN                      // tagged
	DropSourceMAC                 // from a MAC that no entry has at that host
	DropSourceAddr                // from an IP address that is not that MAC's
	// DropGateway is from or to the gateway, which each host has itself; or to all hosts with a packet to one address.
	DropGateway
	DropConfiguration // router advertisements and solicitations, redirects, DHCP
	DropTooBig        // larger than the path, and the sender is told
	DropNoPeer        // to a host that has no address yet, or a MAC that nobody has
	DropKnown         // ARP or neighbour discovery that the entries answer
	DropNoRoute       // of a routed network: to a subnet that no peer has
	DropRate          // more frames to groups than a network may send to peers
	DropSlow          // the TCP connection that carries frames does not get done with them
	DropNoSeal        // there is no session with the peer yet, or its queue is full
	DropSend          // the kernel did not take it
	DropHeld          // a SYN that was sent again while it is decided whether its connection goes from socket to socket
	numReasons
)

var reasonNames = [numReasons]string{
	DropNotVXLAN:      "not-vxlan",
	DropUnknownPeer:   "unknown-peer",
	DropUnknownVNI:    "unknown-vni",
	DropPlain:         "plain-in-sealed-network",
	DropSealed:        "sealed-in-plain-network",
	DropNotReady:      "no-port",
	DropMalformed:     "malformed",
	DropVLAN:          "vlan",
	DropSourceMAC:     "source-mac",
	DropSourceAddr:    "source-address",
	DropGateway:       "gateway",
	DropConfiguration: "configuration",
	DropTooBig:        "too-big",
	DropNoPeer:        "no-peer",
	DropKnown:         "answered-here",
	DropNoRoute:       "no-route",
	DropSlow:          "tcp-too-slow",
	DropRate:          "flood-rate", DropNoSeal: "no-seal", DropSend: "send",
	DropHeld: "syn-held",
}

func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "none"
}

// MarshalText makes a Reason the key of a JSON object.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// pass is the result of checks for a frame that may go on.
const pass = numReasons
