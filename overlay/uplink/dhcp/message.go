package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// Ports of DHCPv4 (RFC 2131 section 4.1) and DHCPv6 (RFC 8415 section 7.2).
const (
	serverPort  = 67
	clientPort  = 68
	serverPort6 = 547
	clientPort6 = 546
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Message is a server's message to a client.
type Message struct {
	MAC  [6]byte // of the client
	From net.HardwareAddr
	v4   *dhcpv4.DHCPv4 // one of these
	v6   *dhcpv6.Message
}

// IsIPv6 says whether it is DHCPv6's.
func (m *Message) IsIPv6() bool { return m.v6 != nil }

// Parse returns the DHCP message of a server in a frame, or nil. The frame is only read.
func Parse(f *vswitch.Frame) *Message {
	t := f.EtherType()
	if t != vswitch.EtherTypeIPv4 && t != vswitch.EtherTypeIPv6 || len(f.Payload) == 0 {
		return nil
	}
	from := f.Ethernet()[6:12]
	if t == vswitch.EtherTypeIPv6 {
		if b := payload(true, f.Payload[0], clientPort6); b != nil {
			return parse6(b, f.Ethernet()[:6], from)
		}
		return nil
	}
	b := payload(false, f.Payload[0], clientPort)
	if b == nil {
		return nil
	}
	body, err := dhcpv4.FromBytes(b)
	if err != nil || body.OpCode != dhcpv4.OpcodeBootReply || len(body.ClientHWAddr) != 6 {
		return nil
	}
	return &Message{MAC: [6]byte(body.ClientHWAddr), From: append(net.HardwareAddr(nil), from...), v4: body}
}

// payload is that of a whole UDP datagram to a port; nil: p is none.
func payload(v6 bool, p []byte, port uint16) []byte {
	h, ok := packet.Parse(v6, p)
	if !ok || h.Proto != packet.ProtoUDP || h.Fragment || h.Payload > len(p) ||
		binary.BigEndian.Uint16(p[h.Transport+2:]) != port {
		return nil
	}
	end := h.Transport + int(binary.BigEndian.Uint16(p[h.Transport+4:]))
	if end < h.Payload || end > len(p) {
		return nil
	}
	return p[h.Payload:end]
}

// datagram is an IP packet with a client's message, with its checksum.
func datagram(src, dst netip.Addr, payload []byte) []byte {
	return udp(netip.AddrPortFrom(src, clientPort), netip.AddrPortFrom(dst, serverPort), payload)
}

// datagram6 is the same by IPv6.
func datagram6(src, dst netip.Addr, payload []byte) []byte {
	return udp(netip.AddrPortFrom(src, clientPort6), netip.AddrPortFrom(dst, serverPort6), payload)
}

func udp(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, packet.MaxUDPHeaders+len(payload)+1)
	n := packet.PutUDP(b, src, dst, len(payload))
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
	// Addr has the length of the subnet (DHCPv4), or of an address: DHCPv6 says nothing of subnets.
	Addr   netip.Prefix
	Router netip.Addr // invalid: none
	Server netip.Addr // DHCPv4's
	// DNS are the name servers that go with it, three at most; none is of this machine or a group.
	DNS []netip.Addr
	// Until is when it ends, and Renew and Rebind when the server, and then all servers, are asked for more.
	Renew, Rebind, Until time.Time

	duid dhcpv6.DUID // of DHCPv6's server
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
	l.DNS = nameServers(m.DNS())
	if l.Server, ok = netip.AddrFromSlice(m.ServerIdentifier().To4()); !ok {
		return Lease{}, false
	}
	// RFC 2131 section 4.4.5: half of the lease, and 7/8.
	length := min(max(m.IPAddressLeaseTime(maxLease), minLease), maxLease)
	l.times(now, m.IPAddressRenewalTime(length/2), m.IPAddressRebindingTime(length*7/8), length, length*7/8)
	return l, true
}

// maxServers is how many name servers of a lease are kept: resolvers use as many (resolv.conf(5)).
const maxServers = 3

// nameServers are those of a list that can be asked from here. A link-local one is asked by its link alone.
func nameServers(list []net.IP) (servers []netip.Addr) {
	for _, ip := range list {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); ok && a.IsGlobalUnicast() && len(servers) < maxServers {
			servers = append(servers, a)
		}
	}
	return servers
}

// times sets when the lease is renewed, rebound and over; lastly is when it is rebound at the latest, where a server
// says what cannot be.
func (l *Lease) times(now time.Time, renew, rebind, length, lastly time.Duration) {
	if renew <= 0 || rebind <= renew || length <= rebind {
		renew, rebind = length/2, lastly
	}
	l.Renew, l.Rebind, l.Until = now.Add(renew), now.Add(rebind), now.Add(length)
}
