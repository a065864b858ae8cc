package fabric

import (
	"encoding/binary"

	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

const (
	// DefaultPort is VXLAN's UDP port (IANA).
	DefaultPort = 4789
	// MaxVNI is the highest VXLAN network identifier of a network: that above is kept for what hosts say to each other.
	MaxVNI     = overlay.MaxVNI
	controlVNI = MaxVNI + 1

	// vxlanHeaderLen is flags, 3 reserved bytes, VNI, 1 reserved byte (RFC 7348, section 5).
	vxlanHeaderLen = 8
	// vxlanFlags has the I flag: the VNI is valid. With other flags set the datagram is of an extension (GBP, GPE),
	// which this is not, as in the kernel.
	vxlanFlags = 0x08

	// encapLen is what VXLAN adds to a packet inside UDP: its own header and the Ethernet header.
	encapLen = vxlanHeaderLen + vswitch.EthernetHeaderLen
)

// putVXLAN writes a VXLAN header.
func putVXLAN(b []byte, vni uint32) {
	binary.BigEndian.PutUint32(b, vxlanFlags<<24)
	binary.BigEndian.PutUint32(b[4:], vni<<8)
}

// parseVXLAN returns the VNI and the frame behind the header. Reserved fields are ignored, as the RFC says. It is false
// where there is no VNI, or no whole Ethernet header.
func parseVXLAN(b []byte) (vni uint32, frame []byte, ok bool) {
	if len(b) < encapLen || b[0] != vxlanFlags {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(b[4:]) >> 8, b[vxlanHeaderLen:], true
}
