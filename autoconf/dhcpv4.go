package autoconf

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	vswitch "github.com/usernet/usernet/switch"
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// answer4 answers a DHCPv4 message that was broadcast.
func (s *Server) answer4(payload []byte) {
	reply := s.reply4(payload)
	if reply == nil {
		return
	}
	from := netip.AddrPortFrom(s.cfg.Router4, serverPort4)
	// RFC 2131 section 4.1: to the client's own address once it has one, else broadcast, which every client hears.
	to, mac := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort4), broadcastMAC
	if a, ok := netip.AddrFromSlice(reply.ClientIPAddr.To4()); ok && !a.IsUnspecified() {
		to, mac = netip.AddrPortFrom(a, clientPort4), reply.ClientHWAddr
	}
	s.send(mac, vswitch.EtherTypeIPv4, datagram4(from, to, reply.ToBytes()))
}

// Renew answers a DHCPv4 message that a client sent to the router's own address, as it does to renew a lease (RFC 2131
// section 4.4.5). It returns nil where there is nothing to answer.
func (s *Server) Renew(payload []byte) []byte {
	reply := s.reply4(payload)
	if reply == nil {
		return nil
	}
	return reply.ToBytes()
}

// reply4 is the answer to a message, RFC 2131 section 4.3, or nil.
func (s *Server) reply4(payload []byte) *dhcpv4.DHCPv4 {
	req, err := dhcpv4.FromBytes(payload)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest || len(req.ClientHWAddr) != 6 {
		return nil
	}
	mac := [6]byte(req.ClientHWAddr)
	if id := req.ServerIdentifier(); id != nil && !id.Equal(net.IP(s.cfg.Router4.AsSlice())) {
		return nil // meant for another server
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		if a := s.reserve(mac, addr4(req.RequestedIPAddress())); a.IsValid() {
			return s.build4(req, dhcpv4.MessageTypeOffer, a)
		}
	case dhcpv4.MessageTypeRequest:
		want := addr4(req.RequestedIPAddress())
		if !want.IsValid() {
			want = addr4(req.ClientIPAddr)
		}
		if a := s.reserve(mac, want); a.IsValid() && (a == want || !want.IsValid()) {
			return s.build4(req, dhcpv4.MessageTypeAck, a)
		}
		return s.build4(req, dhcpv4.MessageTypeNak, netip.Addr{})
	case dhcpv4.MessageTypeInform:
		return s.build4(req, dhcpv4.MessageTypeAck, netip.Addr{})
	case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline:
		s.release(mac)
	}
	return nil
}

func (s *Server) build4(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType, addr netip.Addr) *dhcpv4.DHCPv4 {
	router := net.IP(s.cfg.Router4.AsSlice())
	mods := []dhcpv4.Modifier{
		dhcpv4.WithReply(req),
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithServerIP(router),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(router)),
	}
	if kind != dhcpv4.MessageTypeNak {
		mods = append(mods, dhcpv4.WithNetmask(net.CIDRMask(s.cfg.Subnet4.Bits(), 32)))
		if !s.cfg.NoRoute {
			mods = append(mods, dhcpv4.WithRouter(router))
			if !s.cfg.Subnet4.Contains(s.cfg.Router4) {
				mods = append(mods, dhcpv4.WithOption(routesBy(router)))
			}
		}
		if servers := s.dns(netip.Addr.Is4); len(servers) > 0 {
			list := make([]net.IP, len(servers))
			for i, a := range servers {
				list[i] = a.AsSlice()
			}
			mods = append(mods, dhcpv4.WithDNS(list...))
		}
		if len(s.cfg.Search) > 0 {
			mods = append(mods, dhcpv4.WithDomainSearchList(s.cfg.Search...))
		}
		if s.cfg.Hostname != "" {
			mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(s.cfg.Hostname)))
		}
		if s.cfg.FQDN != "" {
			mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionFQDN, fqdn4(s.cfg.FQDN)))
		}
		if s.cfg.MTU > 0 {
			mtu := []byte{byte(s.cfg.MTU >> 8), byte(s.cfg.MTU)}
			mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, mtu))
		}
	}
	if addr.IsValid() {
		mods = append(mods,
			dhcpv4.WithYourIP(addr.AsSlice()),
			dhcpv4.WithLeaseTime(uint32(s.cfg.Lease/time.Second)))
	}
	if kind == dhcpv4.MessageTypeAck {
		mods = append(mods, dhcpv4.WithClientIP(req.ClientIPAddr)) // RFC 2131 table 3
	}
	reply, err := dhcpv4.New(mods...)
	if err != nil {
		return nil
	}
	return reply
}

// routesBy are the routes by a router that is not in the subnet: to it, on the link, and to all else by it (RFC 3442;
// a client that reads them ignores option 3).
func routesBy(router net.IP) dhcpv4.Option {
	return dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: router, Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: router},
	)
}

// reserve returns the address of a guest: that of a pool of one, the one it has, the one it wants if that is free, else
// the first that is free. It is invalid where the pool is used up.
func (s *Server) reserve(mac [6]byte, want netip.Addr) netip.Addr {
	if s.cfg.First4 == s.cfg.Last4 {
		return s.cfg.First4
	}
	s.leases.Lock()
	defer s.leases.Unlock()
	now := time.Now()
	if a, ok := s.leases.byMAC[mac]; ok {
		s.leases.byAddr[a] = lease{mac, now.Add(s.cfg.Lease)}
		return a
	}
	if s.inPool(want) && s.grant(mac, want, now) {
		return want
	}
	for a := s.cfg.First4; s.inPool(a); a = a.Next() {
		if s.grant(mac, a, now) {
			return a
		}
	}
	return netip.Addr{}
}

// grant leases an address that nobody has, or whose lease has ended. The caller holds leases.
func (s *Server) grant(mac [6]byte, a netip.Addr, now time.Time) bool {
	if old, taken := s.leases.byAddr[a]; taken {
		if now.Before(old.expires) {
			return false
		}
		delete(s.leases.byMAC, old.mac)
	}
	s.leases.byAddr[a] = lease{mac, now.Add(s.cfg.Lease)}
	s.leases.byMAC[mac] = a
	return true
}

func (s *Server) release(mac [6]byte) {
	s.leases.Lock()
	defer s.leases.Unlock()
	if a, ok := s.leases.byMAC[mac]; ok {
		delete(s.leases.byMAC, mac)
		delete(s.leases.byAddr, a)
	}
}

func (s *Server) inPool(a netip.Addr) bool {
	return a.IsValid() && !a.Less(s.cfg.First4) && !s.cfg.Last4.Less(a)
}

// addr4 is invalid for what is no address of a host.
func addr4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// Flags of clients' names: they are written as in DNS messages, and nobody updates the DNS (RFC 4702 section 2.1, RFC
// 4704 section 4.1).
const (
	fqdnEncoded   = 0x04
	fqdnNoUpdate4 = 0x08
	fqdnNoUpdate6 = 0x04
)

// fqdn4 is option 81, RFC 4702 section 2: flags, two fields that are 255 since they mean nothing any more, and the
// name.
func fqdn4(name string) []byte {
	labels := rfc1035label.Labels{Labels: []string{name}}
	return append([]byte{fqdnEncoded | fqdnNoUpdate4, 255, 255}, labels.ToBytes()...)
}
