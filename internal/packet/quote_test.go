package packet

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestQuotes holds what is built by hand against another reader of the same headers.
func TestQuotes(t *testing.T) {
	for _, test := range []struct{ src, dst string }{
		{"172.17.0.2:1000", "192.0.2.7:53"},
		{"[fd00::2]:1000", "[2001:db8::7]:53"},
	} {
		src, dst := netip.MustParseAddrPort(test.src), netip.MustParseAddrPort(test.dst)
		b := QuoteUDP(src, dst, 100)
		var udp header.UDP
		var from, to []byte
		if src.Addr().Is4() {
			ip := header.IPv4(b)
			s, d := ip.SourceAddress(), ip.DestinationAddress()
			from, to = s.AsSlice(), d.AsSlice()
			if ip.TotalLength() != 128 || ip.TTL() != DefaultTTL || ip.Protocol() != uint8(header.UDPProtocolNumber) || ip.Flags() != header.IPv4FlagDontFragment {
				t.Errorf("%s: the header is %s", test.src, hex.EncodeToString(b))
			}
			udp = header.UDP(b[IPv4HeaderLen:])
		} else {
			ip := header.IPv6(b)
			s, d := ip.SourceAddress(), ip.DestinationAddress()
			from, to = s.AsSlice(), d.AsSlice()
			if ip.PayloadLength() != 108 || ip.HopLimit() != DefaultTTL || ip.NextHeader() != uint8(header.UDPProtocolNumber) {
				t.Errorf("%s: the header is %s", test.src, hex.EncodeToString(b))
			}
			udp = header.UDP(b[IPv6HeaderLen:])
		}
		if string(from) != string(src.Addr().AsSlice()) || string(to) != string(dst.Addr().AsSlice()) {
			t.Errorf("%s: addresses %x, %x", test.src, from, to)
		}
		if udp.SourcePort() != src.Port() || udp.DestinationPort() != dst.Port() || udp.Length() != 108 || len(udp) != UDPHeaderLen {
			t.Errorf("%s: the UDP header is %x", test.src, []byte(udp))
		}
	}
}
