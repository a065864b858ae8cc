package autoconf

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	vswitch "github.com/usernet/usernet/switch"
)

// answer6 answers a DHCPv6 message of the guest with this MAC and link-local address.
func (s *Server) answer6(mac net.HardwareAddr, to netip.Addr, payload []byte) {
	reply := s.reply6(payload)
	if reply == nil || !to.IsLinkLocalUnicast() {
		return
	}
	from := netip.AddrPortFrom(vswitch.LinkLocal(s.cfg.Router), serverPort6)
	packet := datagram6(from, netip.AddrPortFrom(to, clientPort6), reply.ToBytes())
	s.send(mac, vswitch.EtherTypeIPv6, packet)
}

// reply6 is the answer to a message, RFC 8415 section 18.3, or nil.
func (s *Server) reply6(payload []byte) *dhcpv6.Message {
	parsed, err := dhcpv6.FromBytes(payload)
	if err != nil {
		return nil
	}
	req, ok := parsed.(*dhcpv6.Message)
	own := &dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: s.cfg.Router} // hardware type 1: Ethernet (RFC 826)
	if !ok || !valid6(req, own) {
		return nil // a relay's, or one to be discarded
	}
	reply := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: req.TransactionID}
	reply.AddOption(req.GetOneOption(dhcpv6.OptionClientID))
	reply.AddOption(dhcpv6.OptServerID(own))
	switch req.MessageType {
	case dhcpv6.MessageTypeConfirm:
		status, ok := s.confirm6(req)
		if !ok {
			return nil // RFC 8415 section 18.3.3: there is nothing to be sure of
		}
		reply.AddOption(status)
		return reply
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline: // the address is this guest's anyway
		reply.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess})
		return reply
	case dhcpv6.MessageTypeSolicit:
		if rapid := req.GetOneOption(dhcpv6.OptionRapidCommit); rapid != nil {
			reply.AddOption(rapid)
		} else {
			reply.MessageType = dhcpv6.MessageTypeAdvertise
		}
	}
	s.associations6(req, reply)
	for _, m := range s.options6() {
		m(reply)
	}
	return reply
}

// valid6 says whether a message names its client, and the server where that is asked for (RFC 8415 section 16).
func valid6(req *dhcpv6.Message, own dhcpv6.DUID) bool {
	if req.Options.ClientID() == nil {
		return false
	}
	id := req.Options.ServerID()
	switch req.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		return id == nil
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return id != nil && id.Equal(own)
	case dhcpv6.MessageTypeInformationRequest:
		return (id == nil || id.Equal(own)) && len(req.Options.IANA()) == 0 && len(req.Options.IATA()) == 0
	}
	return false
}

// confirm6 says whether all addresses of a message are what the guest would get; false: it has none.
func (s *Server) confirm6(req *dhcpv6.Message) (*dhcpv6.OptStatusCode, bool) {
	status := &dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess}
	has := false
	check := func(list []*dhcpv6.OptIAAddress) {
		for _, a := range list {
			has = true
			if !s.is6(a) {
				status = &dhcpv6.OptStatusCode{
					StatusCode: iana.StatusNotOnLink, StatusMessage: "this address is not of this network",
				}
			}
		}
	}
	for _, ia := range req.Options.IANA() {
		check(ia.Options.Addresses())
	}
	for _, ia := range req.Options.IATA() {
		check(ia.Options.Addresses())
	}
	return status, has
}

// is6 says whether an address is the one that the guest gets.
func (s *Server) is6(a *dhcpv6.OptIAAddress) bool { return a.IPv6Addr.Equal(s.cfg.Address6.AsSlice()) }

// associations6 answers the identity associations of a message in the reply. The first one has the address; there are
// no others.
func (s *Server) associations6(req, reply *dhcpv6.Message) {
	none := &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "there is one address"}
	for i, ia := range req.Options.IANA() {
		out := &dhcpv6.OptIANA{IaId: ia.IaId}
		if i > 0 {
			out.Options.Add(none)
		} else {
			s.associate6(req, ia, out)
		}
		reply.AddOption(out)
	}
	for _, ia := range req.Options.IATA() {
		out := &dhcpv6.OptIATA{IaId: ia.IaId}
		out.Options.Add(none)
		reply.AddOption(out)
	}
}

// associate6 puts the address into the answer to an identity association.
func (s *Server) associate6(req *dhcpv6.Message, ia, out *dhcpv6.OptIANA) {
	var foreign []*dhcpv6.OptIAAddress
	for _, a := range ia.Options.Addresses() {
		if !s.is6(a) {
			foreign = append(foreign, a)
		}
	}
	switch req.MessageType {
	case dhcpv6.MessageTypeRequest: // RFC 8415 section 18.3.2
		if len(foreign) > 0 {
			out.Options.Add(&dhcpv6.OptStatusCode{
				StatusCode: iana.StatusNotOnLink, StatusMessage: "this address is not of this network",
			})
			return
		}
	case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind: // sections 18.3.4 and 18.3.5: they are over
		for _, a := range foreign {
			out.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.IPv6Addr})
		}
	}
	out.Options.Add(&dhcpv6.OptIAAddress{
		IPv6Addr:          s.cfg.Address6.AsSlice(),
		PreferredLifetime: s.cfg.Lease / 2,
		ValidLifetime:     s.cfg.Lease,
	})
}

// options6 is what every guest is told that asks for more than its address.
func (s *Server) options6() []dhcpv6.Modifier {
	var mods []dhcpv6.Modifier
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
