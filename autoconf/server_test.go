package autoconf

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/mdlayher/ndp"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	vswitch "github.com/usernet/usernet/switch"
)

var (
	routerMAC = net.HardwareAddr{2, 0x42, 10, 0, 2, 2}
	guestMAC  = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	router4   = netip.MustParseAddr("10.0.2.2")
)

func testConfig() Config {
	return Config{
		Router:   routerMAC,
		Subnet4:  netip.MustParsePrefix("10.0.2.0/24"),
		Router4:  router4,
		First4:   netip.MustParseAddr("10.0.2.15"),
		Last4:    netip.MustParseAddr("10.0.2.18"),
		Prefix6:  netip.MustParsePrefix("fd00::/64"),
		Address6: netip.MustParseAddr("fd00::100"),
		DNS:      []netip.Addr{netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("fd00::3")},
		Search:   []string{"example.com"},
		MTU:      1500,
	}
}

// guest is a station on a switch that keeps what it receives.
type guest struct {
	t        *testing.T
	port     *vswitch.Port
	received [][]byte // whole frames
}

func (g *guest) WriteFrame(f *vswitch.Frame) error {
	frame := bytes.Clone(f.Ethernet())
	for _, p := range f.Payload {
		frame = append(frame, p...)
	}
	g.received = append(g.received, frame)
	return nil
}

// ask sends a packet to all and returns the frame that came back, or nil.
func (g *guest) ask(etherType uint16, packet []byte) []byte {
	g.t.Helper()
	g.received = nil
	var f vswitch.Frame
	copy(f.Ethernet(), broadcastMAC)
	copy(f.Ethernet()[6:], guestMAC)
	f.Ethernet()[12], f.Ethernet()[13] = byte(etherType>>8), byte(etherType)
	f.Payload = [][]byte{packet}
	g.port.Receive(&f)
	if len(g.received) > 1 {
		g.t.Fatalf("%d answers to one question", len(g.received))
	}
	if len(g.received) == 0 {
		return nil
	}
	return g.received[0]
}

func startServer(t *testing.T, cfg Config) (*Server, *guest) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{Name: "test"})
	t.Cleanup(func() { _ = sw.Close() })
	port, err := sw.Connect(vswitch.PortConfig{Name: "autoconf", MAC: s.MAC(), Role: vswitch.Gateway}, s)
	if err != nil {
		t.Fatal(err)
	}
	s.SetPort(port)
	g := &guest{t: t}
	if g.port, err = sw.Connect(vswitch.PortConfig{Name: "guest", MAC: guestMAC, Role: vswitch.Learning}, g); err !=
		nil {
		t.Fatal(err)
	}
	return s, g
}

// ask4 sends a DHCPv4 message as a client without an address does, and checks the frame around the answer.
func (g *guest) ask4(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	g.t.Helper()
	src := netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort4)
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), serverPort4)
	frame := g.ask(vswitch.EtherTypeIPv4, datagram4(src, dst, m.ToBytes()))
	if frame == nil {
		return nil
	}
	if !bytes.Equal(frame[6:12], routerMAC) {
		g.t.Errorf("the answer comes from %x, not from the router", frame[6:12])
	}
	ip := header.IPv4(frame[14:])
	if !ip.IsValid(len(ip)) || !ip.IsChecksumValid() {
		g.t.Fatal("the answer is no valid IPv4 packet")
	}
	udp := header.UDP(ip.Payload())
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(),
		uint16(len(udp)))
	if !verify(udp, sum) {
		g.t.Error("the answer's UDP checksum is wrong")
	}
	reply, err := dhcpv4.FromBytes(udp.Payload())
	if err != nil {
		g.t.Fatal(err)
	}
	return reply
}

func TestDHCPv4LeasesAnAddress(t *testing.T) {
	_, g := startServer(t, testConfig())
	discover, err := dhcpv4.NewDiscovery(guestMAC)
	if err != nil {
		t.Fatal(err)
	}
	offer := g.ask4(discover)
	if offer == nil || offer.MessageType() != dhcpv4.MessageTypeOffer {
		t.Fatalf("no offer, but %v", offer)
	}
	if got := offer.YourIPAddr.String(); got != "10.0.2.15" {
		t.Errorf("offered %s, want the first of the pool", got)
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	ack := g.ask4(request)
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("no acknowledgement, but %v", ack)
	}
	for what, ok := range map[string]bool{
		"address":           ack.YourIPAddr.Equal(net.IPv4(10, 0, 2, 15)),
		"router":            len(ack.Router()) == 1 && ack.Router()[0].Equal(net.IPv4(10, 0, 2, 2)),
		"mask":              net.IP(ack.SubnetMask()).Equal(net.IPv4(255, 255, 255, 0)),
		"DNS server":        len(ack.DNS()) == 1 && ack.DNS()[0].Equal(net.IPv4(10, 0, 2, 3)),
		"lease time":        ack.IPAddressLeaseTime(0) == DefaultLease,
		"MTU":               bytes.Equal(ack.Options.Get(dhcpv4.OptionInterfaceMTU), []byte{0x05, 0xdc}),
		"search list":       ack.DomainSearch() != nil && ack.DomainSearch().Labels[0] == "example.com",
		"server identifier": ack.ServerIdentifier().Equal(net.IPv4(10, 0, 2, 2)),
	} {
		if !ok {
			t.Errorf("the %s is wrong in %s", what, ack.Summary())
		}
	}
}

func TestDHCPv4KeepsWithinItsPool(t *testing.T) {
	s, _ := startServer(t, testConfig())
	seen := map[string]bool{}
	for i := range 6 {
		discover, _ := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, byte(i)})
		offer := s.reply4(discover.ToBytes())
		switch {
		case i < 4 && (offer == nil || seen[offer.YourIPAddr.String()]):
			t.Errorf("guest %d was offered %v", i, offer)
		case i >= 4 && offer != nil:
			t.Errorf("guest %d was offered %v, and the pool is used up", i, offer.YourIPAddr)
		}
		if offer != nil {
			seen[offer.YourIPAddr.String()] = true
		}
	}
	release, _ := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease),
		dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	if s.reply4(release.ToBytes()) != nil {
		t.Error("a release was answered")
	}
	discover, _ := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 9})
	if s.reply4(discover.ToBytes()) == nil {
		t.Error("a released address is not offered again")
	}
}

func TestDHCPv4Rules(t *testing.T) {
	discover := func(m ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		d, err := dhcpv4.NewDiscovery(guestMAC, m...)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	ip := func(s string) net.IP { return net.ParseIP(s) }
	for _, c := range []struct {
		name string
		cfg  Config
		ask  *dhcpv4.DHCPv4
		want dhcpv4.MessageType // MessageTypeNone: no answer
		addr string
	}{
		{"an address that is asked for", testConfig(),
			discover(dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip("10.0.2.17")))),
			dhcpv4.MessageTypeOffer, "10.0.2.17"},
		{"an address outside of the pool", testConfig(),
			discover(dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip("10.0.2.99")))),
			dhcpv4.MessageTypeOffer, "10.0.2.15"},
		{"a request for a foreign address", testConfig(), discover(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip("192.0.2.1")))), dhcpv4.MessageTypeNak, "0.0.0.0"},
		{"a request for another server", testConfig(), discover(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip("10.0.2.9")))), dhcpv4.MessageTypeNone, ""},
		{"an inform", testConfig(), discover(dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)), dhcpv4.MessageTypeAck,
			"0.0.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := startServer(t, c.cfg)
			reply := s.reply4(c.ask.ToBytes())
			if c.want == dhcpv4.MessageTypeNone {
				if reply != nil {
					t.Fatalf("answered %s", reply.Summary())
				}
				return
			}
			if reply == nil || reply.MessageType() != c.want || reply.YourIPAddr.String() != c.addr {
				t.Fatalf("got %v, want %v with %s", reply, c.want, c.addr)
			}
		})
	}
}

func TestExpiredLeasesAreGivenAway(t *testing.T) {
	cfg := testConfig()
	cfg.Last4 = cfg.First4.Next()
	cfg.Lease = time.Nanosecond
	s, _ := startServer(t, cfg)
	for i := range 5 {
		discover, _ := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, byte(i)})
		if offer := s.reply4(discover.ToBytes()); offer == nil {
			t.Fatalf("guest %d got no address, and the last lease is over", i)
		}
	}
	if len(s.leases.byMAC) > 2 || len(s.leases.byAddr) > 2 {
		t.Errorf("%d guests and %d addresses are kept, want two at most", len(s.leases.byMAC), len(s.leases.byAddr))
	}
}

// TestTheOneAddressIsTheGuests: it has it again with another MAC address.
func TestTheOneAddressIsTheGuests(t *testing.T) {
	cfg := testConfig()
	cfg.Last4 = cfg.First4
	s, _ := startServer(t, cfg)
	for i := range 3 {
		discover, _ := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, byte(i)})
		if offer := s.reply4(discover.ToBytes()); offer == nil || !offer.YourIPAddr.Equal(cfg.First4.AsSlice()) {
			t.Fatalf("with its MAC address %d the guest was offered %v", i, offer)
		}
	}
}

// TestARouterBeyondTheSubnet is told with the route that leads to it (RFC 3442).
func TestARouterBeyondTheSubnet(t *testing.T) {
	cfg := testConfig()
	cfg.Router4 = netip.MustParseAddr("192.0.2.1")
	s, _ := startServer(t, cfg)
	discover, _ := dhcpv4.NewDiscovery(guestMAC)
	want := []byte{32, 192, 0, 2, 1, 0, 0, 0, 0, 0, 192, 0, 2, 1}
	if got := s.reply4(discover.ToBytes()).Options.Get(dhcpv4.OptionClasslessStaticRoute); !bytes.Equal(got, want) {
		t.Errorf("option 121: %v, want %v", got, want)
	}
	s, _ = startServer(t, testConfig())
	if got := s.reply4(discover.ToBytes()).Options.Get(dhcpv4.OptionClasslessStaticRoute); got != nil {
		t.Errorf("option 121 for a router in the subnet: %v", got)
	}
}

func TestRouterSolicitationsAreAnswered(t *testing.T) {
	_, g := startServer(t, testConfig())
	from := vswitch.LinkLocal(guestMAC)
	body, err := ndp.MarshalMessageChecksum(&ndp.RouterSolicitation{}, from, netip.MustParseAddr("ff02::2"))
	if err != nil {
		t.Fatal(err)
	}
	frame := g.ask(vswitch.EtherTypeIPv6,
		packet6(from, netip.MustParseAddr("ff02::2"), header.ICMPv6ProtocolNumber, 255, body))
	if frame == nil {
		t.Fatal("no advertisement")
	}
	ip := header.IPv6(frame[14:])
	m, err := ndp.ParseMessage(ip.Payload())
	if err != nil {
		t.Fatal(err)
	}
	ra, ok := m.(*ndp.RouterAdvertisement)
	if !ok || ip.HopLimit() != 255 || ra.RouterLifetime != routerLifetime {
		t.Fatalf("hop limit %d, %+v", ip.HopLimit(), m)
	}
	if got := netip.AddrFrom16(ip.SourceAddress().As16()); got != vswitch.LinkLocal(routerMAC) {
		t.Errorf("advertised by %s, not by the gateway", got)
	}
	var prefix, dns, mtu bool
	for _, o := range ra.Options {
		switch o := o.(type) {
		case *ndp.PrefixInformation:
			prefix = o.Prefix == netip.MustParseAddr("fd00::") && o.AutonomousAddressConfiguration && o.OnLink
		case *ndp.RecursiveDNSServer:
			dns = len(o.Servers) == 1 && o.Servers[0] == netip.MustParseAddr("fd00::3")
		case *ndp.MTU:
			mtu = o.MTU == 1500
		}
	}
	if !prefix || !dns || !mtu {
		t.Errorf("prefix %v, DNS server %v, MTU %v in %+v", prefix, dns, mtu, ra.Options)
	}
	answers := 0
	for range 100 {
		if g.ask(vswitch.EtherTypeIPv6,
			packet6(from, netip.MustParseAddr("ff02::2"), header.ICMPv6ProtocolNumber, 255, body)) != nil {
			answers++
		}
	}
	if answers == 100 {
		t.Error("advertisements are not limited in rate")
	}
}

func TestDHCPv6GivesTheAddress(t *testing.T) {
	_, g := startServer(t, testConfig())
	ask := func(m *dhcpv6.Message) *dhcpv6.Message {
		t.Helper()
		src := netip.AddrPortFrom(vswitch.LinkLocal(guestMAC), clientPort6)
		dst := netip.AddrPortFrom(netip.MustParseAddr("ff02::1:2"), serverPort6)
		frame := g.ask(vswitch.EtherTypeIPv6, datagram6(src, dst, m.ToBytes()))
		if frame == nil {
			t.Fatalf("no answer to %s", m.MessageType)
		}
		reply, err := dhcpv6.FromBytes(header.UDP(header.IPv6(frame[14:]).Payload()).Payload())
		if err != nil {
			t.Fatal(err)
		}
		return reply.(*dhcpv6.Message)
	}
	solicit, err := dhcpv6.NewSolicit(guestMAC)
	if err != nil {
		t.Fatal(err)
	}
	advertise := ask(solicit)
	if advertise.MessageType != dhcpv6.MessageTypeAdvertise {
		t.Fatalf("answered %s", advertise.MessageType)
	}
	request, err := dhcpv6.NewRequestFromAdvertise(advertise)
	if err != nil {
		t.Fatal(err)
	}
	reply := ask(request)
	ia := reply.Options.OneIANA()
	if reply.MessageType != dhcpv6.MessageTypeReply || ia == nil || ia.IaId != request.Options.OneIANA().IaId ||
		len(reply.Options.IANA()) != 1 || ia.Options.OneAddress() == nil ||
		!ia.Options.OneAddress().IPv6Addr.Equal(net.ParseIP("fd00::100")) {
		t.Fatalf("got %s", reply.Summary())
	}
	if d := reply.Options.DNS(); len(d) != 1 || !d[0].Equal(net.ParseIP("fd00::3")) {
		t.Errorf("DNS servers %v", d)
	}
}

func TestBadConfigurations(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no router":                func(c *Config) { c.Router = nil },
		"a pool outside":           func(c *Config) { c.Last4 = netip.MustParseAddr("10.0.3.1") },
		"a pool that ends first":   func(c *Config) { c.First4, c.Last4 = c.Last4, c.First4 },
		"a prefix of another size": func(c *Config) { c.Prefix6 = netip.MustParsePrefix("fd00::/72") },
	} {
		cfg := testConfig()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzGuests sends packets of any content: nothing may panic, and the leases stay bounded by the pool.
func FuzzGuests(f *testing.F) {
	discover, _ := dhcpv4.NewDiscovery(guestMAC)
	solicit, _ := dhcpv6.NewSolicit(guestMAC)
	any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), serverPort4)
	any6 := netip.AddrPortFrom(netip.MustParseAddr("fe80::1"), serverPort6)
	f.Add(uint16(vswitch.EtherTypeIPv4), datagram4(any4, any4, discover.ToBytes()))
	f.Add(uint16(vswitch.EtherTypeIPv6), datagram6(any6, any6, solicit.ToBytes()))
	f.Fuzz(func(t *testing.T, etherType uint16, packet []byte) {
		s, g := startServer(t, testConfig())
		g.ask(etherType, packet)
		if len(s.leases.byMAC) > 4 {
			t.Errorf("%d leases of a pool of 4", len(s.leases.byMAC))
		}
	})
}

// verify says whether a datagram with this pseudo header's sum has a valid checksum.
func verify(udp header.UDP, sum uint16) bool { return checksum.Checksum(udp, sum) == 0xffff }

// TestGuestsAreToldTheirNames: by DHCP's options 12 and 81, and DHCPv6's option 39.
func TestGuestsAreToldTheirNames(t *testing.T) {
	cfg := testConfig()
	cfg.Hostname, cfg.FQDN = "guest", "guest.example.com"
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	discover, err := dhcpv4.NewDiscovery(guestMAC)
	if err != nil {
		t.Fatal(err)
	}
	offer := s.reply4(discover.ToBytes())
	if offer.HostName() != "guest" {
		t.Errorf("option 12: %q", offer.HostName())
	}
	// RFC 4702 section 2.1: the flags N and E, two bytes of 255, and the name in labels.
	want := append([]byte{0x0c, 255, 255}, "\x05guest\x07example\x03com\x00"...)
	if got := offer.Options.Get(dhcpv4.OptionFQDN); !bytes.Equal(got, want) {
		t.Errorf("option 81: %q, want %q", got, want)
	}
	solicit, err := dhcpv6.NewSolicit(guestMAC)
	if err != nil {
		t.Fatal(err)
	}
	fqdn := s.reply6(solicit.ToBytes()).Options.FQDN()
	if fqdn == nil || fqdn.Flags != 4 || fqdn.DomainName.String() != "[guest.example.com]" {
		t.Errorf("option 39: %v", fqdn)
	}
}
