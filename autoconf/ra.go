package autoconf

import (
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	vswitch "github.com/usernet/usernet/switch"
)

// Times of router advertisements, RFC 4861 section 6.2.1: MaxRtrAdvInterval's default is ten minutes, the router's
// lifetime three of it, a prefix is valid for 30 days and preferred for 7.
const (
	maxRtrAdvInterval = 10 * time.Minute
	routerLifetime    = 3 * maxRtrAdvInterval
	prefixValid       = 30 * 24 * time.Hour
	prefixPreferred   = 7 * 24 * time.Hour
)

// allNodes is where unsolicited advertisements go (RFC 4291 section 2.7.1), and its MAC address (RFC 2464 section 7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// advertise sends a router advertisement to the guest that solicited it, or to all where it has no address yet.
func (s *Server) advertise(mac net.HardwareAddr, to netip.Addr) {
	if mac == nil || !to.IsLinkLocalUnicast() {
		mac, to = allNodesMAC, allNodes
	}
	from := vswitch.LinkLocal(s.cfg.Router)
	body, err := ndp.MarshalMessageChecksum(s.advertisement(), from, to)
	if err != nil {
		return // nothing in it depends on the guest
	}
	s.send(mac, vswitch.EtherTypeIPv6, packet6(from, to, header.ICMPv6ProtocolNumber, header.NDPHopLimit, body))
}

func (s *Server) advertisement() *ndp.RouterAdvertisement {
	ra := &ndp.RouterAdvertisement{
		CurrentHopLimit:      hopLimit,
		ManagedConfiguration: s.cfg.Address6.IsValid(),
		OtherConfiguration:   s.cfg.Address6.IsValid(),
		RouterLifetime:       routerLifetime,
		Options: []ndp.Option{
			&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: s.cfg.Router},
			&ndp.PrefixInformation{
				PrefixLength:                   uint8(s.cfg.Prefix6.Bits()),
				OnLink:                         true,
				AutonomousAddressConfiguration: !s.cfg.Assigned6,
				ValidLifetime:                  prefixValid,
				PreferredLifetime:              prefixPreferred,
				Prefix:                         s.cfg.Prefix6.Masked().Addr(),
			},
		},
	}
	if s.cfg.NoRoute {
		ra.RouterLifetime = 0 // RFC 4861 section 4.2: no default router
	}
	if s.cfg.MTU >= header.IPv6MinimumMTU {
		ra.Options = append(ra.Options, ndp.NewMTU(uint32(s.cfg.MTU)))
	}
	if servers := s.dns(netip.Addr.Is6); len(servers) > 0 { // RFC 8106
		ra.Options = append(ra.Options, &ndp.RecursiveDNSServer{Lifetime: routerLifetime, Servers: servers})
	}
	if len(s.cfg.Search) > 0 {
		ra.Options = append(ra.Options, &ndp.DNSSearchList{Lifetime: routerLifetime, DomainNames: s.cfg.Search})
	}
	return ra
}

// dns returns the name servers of a family.
func (s *Server) dns(family func(netip.Addr) bool) []netip.Addr {
	var list []netip.Addr
	for _, a := range s.cfg.DNS {
		if family(a) {
			list = append(list, a)
		}
	}
	return list
}
