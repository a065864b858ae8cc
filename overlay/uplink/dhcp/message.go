package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// Ports of DHCPv4 (RFC 2131 section 4.1).
const (
	serverPort = 67
	clientPort = 68
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Message is a server's message to a client.
type Message struct {
	MAC  [6]byte // of the client
	From net.HardwareAddr
	body *dhcpv4.DHCPv4
}

// Parse returns the DHCP message of a server in a frame, or nil. The frame is only read.
func Parse(f *vswitch.Frame) *Message {
	if f.EtherType() != vswitch.EtherTypeIPv4 || len(f.Payload) == 0 {
		return nil
	}
	p := f.Payload[0]
	h, ok := packet.Parse(false, p)
	if !ok || h.Proto != packet.ProtoUDP || h.Fragment || h.Payload > len(p) ||
		binary.BigEndian.Uint16(p[h.Transport+2:]) != clientPort {
		return nil
	}
	end := h.Transport + int(binary.BigEndian.Uint16(p[h.Transport+4:]))
	if end < h.Payload || end > len(p) {
		return nil
	}
	body, err := dhcpv4.FromBytes(p[h.Payload:end])
	if err != nil || body.OpCode != dhcpv4.OpcodeBootReply || len(body.ClientHWAddr) != 6 {
		return nil
	}
	from := append(net.HardwareAddr(nil), f.Ethernet()[6:12]...)
	return &Message{MAC: [6]byte(body.ClientHWAddr), From: from, body: body}
}

// datagram is an IP packet with a message, with its checksum.
func datagram(src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, packet.MaxUDPHeaders+len(payload)+1)
	n := packet.PutUDP(b, netip.AddrPortFrom(src, clientPort), netip.AddrPortFrom(dst, serverPort), len(payload))
	end := n + copy(b[n:], payload)
	udp := b[n-packet.UDPHeaderLen : end+(end-n)%2] // an even number of bytes; the last may be a zero
	sum := ^packet.Sum(udp, 0)                      // the field has the sum of the pseudo header
	if sum == 0 {
		sum = 0xffff // 0 would mean none (RFC 768)
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return b[:end]
}

// Lease is an address that a server gave or offers.
type Lease struct {
	Addr   netip.Prefix
	Router netip.Addr // invalid: none
	Server netip.Addr
	// Until is when it ends, and Renew and Rebind when the server, and then all servers, are asked for more.
	Renew, Rebind, Until time.Time
}

// Bounds of what servers say, so that none has a client send in a flood or never again.
const (
	minLease = 10 * time.Second
	maxLease = 365 * 24 * time.Hour
)

// leaseOf reads an offer or an acknowledgement; it is false where that has no address of a host.
func leaseOf(m *dhcpv4.DHCPv4, now time.Time) (Lease, bool) {
	a, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !ok || !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() {
		return Lease{}, false
	}
	bits, size := m.SubnetMask().Size()
	if size != 32 || bits < 1 || bits > 30 { // nobody else would be on the link
		return Lease{}, false
	}
	l := Lease{Addr: netip.PrefixFrom(a, bits)}
	if routers := m.Router(); len(routers) > 0 {
		if r, ok := netip.AddrFromSlice(routers[0].To4()); ok && l.Addr.Contains(r) {
			l.Router = r
		}
	}
	if l.Server, ok = netip.AddrFromSlice(m.ServerIdentifier().To4()); !ok {
		return Lease{}, false
	}
	length := min(max(m.IPAddressLeaseTime(maxLease), minLease), maxLease)
	// RFC 2131 section 4.4.5: half of the lease, and 7/8.
	renew := m.IPAddressRenewalTime(length / 2)
	rebind := m.IPAddressRebindingTime(length * 7 / 8)
	if renew <= 0 || rebind <= renew || length <= rebind {
		renew, rebind = length/2, length*7/8
	}
	l.Renew, l.Rebind, l.Until = now.Add(renew), now.Add(rebind), now.Add(length)
	return l, true
}
