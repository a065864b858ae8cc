package packet

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
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
			if ip.TotalLength() != 128 || ip.TTL() != DefaultTTL || ip.Protocol() != uint8(header.UDPProtocolNumber) ||
				ip.Flags() != header.IPv4FlagDontFragment {
				t.Errorf("%s: the header is %s", test.src, hex.EncodeToString(b))
			}
			if !ip.IsChecksumValid() {
				t.Errorf("%s: the header's checksum is %x", test.src, ip.Checksum())
			}
			udp = header.UDP(b[IPv4HeaderLen:])
		} else {
			ip := header.IPv6(b)
			s, d := ip.SourceAddress(), ip.DestinationAddress()
			from, to = s.AsSlice(), d.AsSlice()
			if ip.PayloadLength() != 108 || ip.HopLimit() != DefaultTTL || ip.NextHeader() !=
				uint8(header.UDPProtocolNumber) {
				t.Errorf("%s: the header is %s", test.src, hex.EncodeToString(b))
			}
			udp = header.UDP(b[IPv6HeaderLen:])
		}
		if string(from) != string(src.Addr().AsSlice()) || string(to) != string(dst.Addr().AsSlice()) {
			t.Errorf("%s: addresses %x, %x", test.src, from, to)
		}
		if udp.SourcePort() != src.Port() || udp.DestinationPort() != dst.Port() || udp.Length() != 108 || len(udp) !=
			UDPHeaderLen {
			t.Errorf("%s: the UDP header is %x", test.src, []byte(udp))
		}
		pseudo := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFromSlice(from),
			tcpip.AddrFromSlice(to), 108)
		if udp.Checksum() != pseudo {
			t.Errorf("%s: the sum of the pseudo header is %x, want %x", test.src, udp.Checksum(), pseudo)
		}
	}
}

// FuzzSum holds the sum against netstack's.
func FuzzSum(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0, 1}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, initial uint16) {
		b = b[:len(b)&^1]
		got, want := Sum(b, initial), checksum.Checksum(b, initial)
		if got != want && (got != 0 || want != 0xffff) && (got != 0xffff || want != 0) { // both are zero (RFC 1071)
			t.Errorf("%x, want %x", got, want)
		}
	})
}

// FuzzQuote builds the datagrams that errors quote.
func FuzzQuote(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, []byte{10, 0, 0, 1}, uint16(1), uint16(2), 100)
	f.Add(make([]byte, 16), make([]byte, 16), uint16(1), uint16(2), 65507)
	f.Fuzz(func(t *testing.T, a, b []byte, from, to uint16, size int) {
		src, ok1 := netip.AddrFromSlice(a)
		dst, ok2 := netip.AddrFromSlice(b)
		if !ok1 || !ok2 || src.Is4() != dst.Is4() || size < 0 || size > 65507 {
			return
		}
		q := QuoteUDP(netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to), size)
		want := 28
		if src.Is6() {
			want = 48
		}
		if len(q) < want {
			t.Errorf("%d bytes are quoted, too few for the headers", len(q))
		}
	})
}
