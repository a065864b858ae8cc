package autoconf

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/rfc1035label"

	vswitch "github.com/usernet/usernet/switch"
)

// answer6 answers a DHCPv6 message of the guest with this MAC and link-local address.
func (s *Server) answer6(mac net.HardwareAddr, to netip.Addr, payload []byte) {
	reply := s.reply6(mac, payload)
	if reply == nil || !to.IsLinkLocalUnicast() {
		return
	}
	from := netip.AddrPortFrom(vswitch.LinkLocal(s.cfg.Router), serverPort6)
	packet := datagram6(from, netip.AddrPortFrom(to, clientPort6), reply.ToBytes())
	s.send(mac, vswitch.EtherTypeIPv6, packet)
}

// reply6 is the answer to a message, RFC 8415 section 18.3, or nil.
func (s *Server) reply6(mac net.HardwareAddr, payload []byte) *dhcpv6.Message {
	parsed, err := dhcpv6.FromBytes(payload)
	if err != nil {
		return nil
	}
	req, ok := parsed.(*dhcpv6.Message)
	if !ok || req.Options.ClientID() == nil {
		return nil // a relay's, or without a client's identifier (RFC 8415 section 16)
	}
	own := &dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: s.cfg.Router} // hardware type 1: Ethernet (RFC 826)
	if id := req.Options.ServerID(); id != nil && !id.Equal(own) {
		return nil
	}
	mods := s.options6(own)
	if ia := req.Options.OneIANA(); ia != nil {
		mods = append(mods, dhcpv6.WithIAID(ia.IaId), dhcpv6.WithIANA(dhcpv6.OptIAAddress{
			IPv6Addr:          s.cfg.Address6.AsSlice(),
			PreferredLifetime: s.cfg.Lease / 2,
			ValidLifetime:     s.cfg.Lease,
		}))
	}
	switch req.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if req.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
			reply, err := dhcpv6.NewAdvertiseFromSolicit(req, mods...)
			return orNil(reply, err)
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeConfirm,
		dhcpv6.MessageTypeInformationRequest, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
	default:
		return nil
	}
	reply, err := dhcpv6.NewReplyFromMessage(req, mods...)
	return orNil(reply, err)
}

func (s *Server) options6(own dhcpv6.DUID) []dhcpv6.Modifier {
	mods := []dhcpv6.Modifier{dhcpv6.WithServerID(own)}
	if servers := s.dns(netip.Addr.Is6); len(servers) > 0 {
		list := make([]net.IP, len(servers))
		for i, a := range servers {
			list[i] = a.AsSlice()
		}
		mods = append(mods, dhcpv6.WithDNS(list...))
	}
	if len(s.cfg.Search) > 0 {
		mods = append(mods, dhcpv6.WithDomainSearchList(s.cfg.Search...))
	}
	if s.cfg.FQDN != "" {
		mods = append(mods, dhcpv6.WithOption(&dhcpv6.OptFQDN{
			Flags:      fqdnNoUpdate6,
			DomainName: &rfc1035label.Labels{Labels: []string{s.cfg.FQDN}},
		}))
	}
	return mods
}

func orNil(m *dhcpv6.Message, err error) *dhcpv6.Message {
	if err != nil {
		return nil
	}
	return m
}
