package vswitch

// Reason says why a frame was dropped.
type Reason uint8

// The reasons, in the order in which a frame is checked.
const (
	DropShort     Reason = iota // shorter than an Ethernet header
	DropVirtio                  // the virtio header contradicts the frame
	DropOversize                // larger than the network's MTU
	DropMulticast               // a group address as source
	DropMAC                     // from a MAC that is not the port's
	DropReserved                // to an 802.1D group address: spanning tree, pause, LLDP
	DropVLAN                    // tagged
	DropMalformed               // an IP, ARP or ICMP header that is cut short or contradicts itself
	DropIPv4                    // from an IPv4 address that is not the port's
	DropIPv6                    // from an IPv6 address that is not the port's
	DropOptions                 // IP options or routing headers that steer a packet
	DropFragment                // fragments that overlap, or hide the transport header
	DropARP                     // ARP for somebody else's address
	DropNeighbour               // neighbour discovery for somebody else's address
	DropRouter                  // router advertisements and renumbering
	DropRedirect                // ICMP redirects
	DropDHCP                    // a DHCP server's messages
	DropIsolated                // to a port that this one may not talk to, or not about this
	DropOtherVLAN               // to a port of another VLAN, or of none where this one has one
	DropUnknown                 // to a MAC that no port has
	DropRate                    // more frames to groups, or to MACs that no port has, than a port may send
	DropFilter                  // PortConfig.Filter does not let it pass
	DropPolicy                  // Switch.SetPolicy's does not let it pass
	DropDevice                  // the receiving device did not take it
	numReasons
)

var reasonNames = [numReasons]string{
	DropShort: "short", DropVirtio: "virtio-header", DropOversize: "oversize", DropMulticast: "multicast-source",
	DropMAC: "mac", DropReserved: "reserved-group", DropVLAN: "vlan", DropMalformed: "malformed",
	DropIPv4: "ipv4-source",
	DropIPv6: "ipv6-source", DropOptions: "ip-options", DropFragment: "fragment", DropARP: "arp",
	DropNeighbour: "neighbour-discovery",
	DropRouter:    "router-advertisement",
	DropRedirect:  "redirect",
	DropDHCP:      "dhcp-server",
	DropIsolated:  "isolated", DropOtherVLAN: "other-vlan", DropUnknown: "unknown-destination",
	DropRate: "flood-rate", DropFilter: "filter", DropPolicy: "policy", DropDevice: "device",
}

func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "none"
}

// MarshalText makes a Reason the key of a JSON object.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// verdictPass is the result of checks for a frame that may go on.
const verdictPass = numReasons
