package fabric

import (
	"encoding/binary"
	"fmt"

	vswitch "github.com/usernet/usernet/switch"
)

// Encap is how a fabric's frames are carried in UDP. All headers have the length of VXLAN's, but BareIP has none.
type Encap uint8

// The encapsulations. Hosts of a cluster speak VXLAN; the others are for foreign peers only.
const (
	VXLAN  Encap = iota // RFC 7348
	Geneve              // RFC 8926, sent without options
	// GREInUDP is GRE (RFC 2784) in UDP (RFC 8086), with the network's number as the key (RFC 2890). GRE without UDP is
	// an IP protocol of its own, which takes a raw socket.
	GREInUDP
	// BareIP has neither a header nor an Ethernet frame: the datagram is the IPv4 packet. It is for one routed network
	// (NetworkConfig.Routed), such as flannel's with the backend udp.
	BareIP
)

// bareVNI is the number that the one network of a BareIP fabric is opened with; it is not on the wire.
const bareVNI = 1

var encapNames = [...]string{VXLAN: "vxlan", Geneve: "geneve", GREInUDP: "gre-in-udp", BareIP: "bare IP packets"}

func (e Encap) String() string { return encapNames[e] }

// ParseEncap returns the encapsulation of Ethernet frames with a name.
func ParseEncap(name string) (Encap, error) {
	for e, n := range encapNames[:BareIP] {
		if n == name {
			return Encap(e), nil
		}
	}
	if name == "gre" {
		return 0, fmt.Errorf("GRE needs IP protocol 47, which no unprivileged socket has: give gre-in-udp (RFC 8086), " +
			"geneve or vxlan")
	}
	return 0, fmt.Errorf("%q is no encapsulation: give vxlan, geneve or gre-in-udp", name)
}

// Port is the encapsulation's UDP port (IANA; BareIP: flannel's default).
func (e Encap) Port() uint16 {
	return [...]uint16{VXLAN: DefaultPort, Geneve: 6081, GREInUDP: 4754, BareIP: 8285}[e]
}

// overhead is what the encapsulation adds to a packet inside UDP, in bytes.
func (e Encap) overhead() int {
	if e == BareIP {
		return 0
	}
	return encapLen
}

// InnerMTU is how large a packet of a container may be on a path where IP packets of mtu bytes get through.
func (e Encap) InnerMTU(mtu int, v6 bool) int { return mtu - outerHeaders(v6) - e.overhead() }

const (
	// transEtherBridging is the protocol type of Ethernet frames (RFC 1701; Linux: ETH_P_TEB).
	transEtherBridging = 0x6558

	// geneveHeaderLen is Geneve's header without options; their length is in its first byte, in units of 4 bytes
	// (RFC 8926, section 3.4).
	geneveHeaderLen = 8
	geneveOptLen    = 0x3f
	geneveOptUnit   = 4
	// geneveControl marks packets that are for the tunnel's end, geneveCritical options that have to be understood.
	geneveControl, geneveCritical = 0x80, 0x40

	// greKey marks the key (RFC 2890, section 2). Packets with a checksum or a sequence number, whose header is
	// longer, are dropped: peers send them only where they are told to.
	greKey = 0x2000
)

// put writes the header of a frame.
func (e Encap) put(b []byte, vni uint32) {
	switch e {
	case Geneve:
		binary.BigEndian.PutUint32(b, transEtherBridging)
		binary.BigEndian.PutUint32(b[4:], vni<<8)
	case GREInUDP:
		binary.BigEndian.PutUint32(b, greKey<<16|transEtherBridging)
		binary.BigEndian.PutUint32(b[4:], vni)
	default:
		putVXLAN(b, vni)
	}
}

// parse returns the VNI and the frame behind the header, which BareIP has not: there it is the packet. It is false for
// what is of another kind, and where there is no whole Ethernet header.
func (e Encap) parse(b []byte) (vni uint32, frame []byte, ok bool) {
	switch e {
	case Geneve:
		return parseGeneve(b)
	case GREInUDP:
		if len(b) < encapLen || binary.BigEndian.Uint32(b) != greKey<<16|transEtherBridging {
			return 0, nil, false
		}
		return binary.BigEndian.Uint32(b[4:]), b[vxlanHeaderLen:], true
	case BareIP:
		return bareVNI, b, len(b) > 0 && b[0]>>4 == 4
	}
	return parseVXLAN(b)
}

// parseGeneve passes options over, unless one has to be understood.
func parseGeneve(b []byte) (vni uint32, frame []byte, ok bool) {
	if len(b) < geneveHeaderLen || b[0]&^geneveOptLen != 0 || b[1]&(geneveControl|geneveCritical) != 0 ||
		binary.BigEndian.Uint16(b[2:]) != transEtherBridging {
		return 0, nil, false
	}
	n := geneveHeaderLen + int(b[0]&geneveOptLen)*geneveOptUnit
	if len(b) < n+vswitch.EthernetHeaderLen {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[n:], true
}
