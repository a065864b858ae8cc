package packet

import (
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ipv6 is a packet with the given extension headers and upper layer.
func ipv6(first uint8, rest ...byte) []byte {
	h := make([]byte, IPv6HeaderLen, IPv6HeaderLen+len(rest))
	h[0], h[6], h[7] = 0x60, first, DefaultTTL
	h[5] = byte(len(rest))
	return append(h, rest...)
}

func TestUpperIPv6(t *testing.T) {
	options := func(next uint8) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} } // padded by PadN
	fragment := func(next, offset byte) []byte { return []byte{next, 0, 0, offset << 3, 0, 0, 0, 7} }
	for _, test := range []struct {
		what string
		p    []byte
		want Upper
		ok   bool
	}{
		{"UDP at once", ipv6(ProtoUDP, make([]byte, 8)...), Upper{Proto: ProtoUDP, Offset: 40}, true},
		{"behind options", ipv6(ProtoHopByHop, append(options(ProtoICMPv6), 135, 0)...), Upper{Proto: ProtoICMPv6, Offset: 48}, true},
		{"behind options twice", ipv6(ProtoDstOpts, append(options(ProtoDstOpts), append(options(ProtoTCP), 1)...)...), Upper{Proto: ProtoTCP, Offset: 56}, true},
		{"a first fragment", ipv6(ProtoFragment, fragment(ProtoUDP, 0)...), Upper{Proto: ProtoUDP, Offset: 48}, true},
		{"a later fragment", ipv6(ProtoFragment, fragment(ProtoUDP, 1)...), Upper{Proto: ProtoUDP, Offset: 48, Later: true}, true},
		{"no packet", []byte{0x60}, Upper{}, false},
		{"another version", append([]byte{0x45}, make([]byte, 60)...), Upper{}, false},
		{"options cut short", ipv6(ProtoHopByHop, 17, 0), Upper{Proto: ProtoHopByHop, Offset: 40}, false},
		{"options longer than the packet", ipv6(ProtoHopByHop, 17, 9, 0, 0, 0, 0, 0, 0), Upper{Proto: ProtoHopByHop, Offset: 40}, false},
		{"options for ever", ipv6(ProtoHopByHop, make([]byte, 200)...), Upper{Proto: ProtoHopByHop, Offset: 104}, false},
	} {
		got, ok := UpperIPv6(test.p)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%s: %+v, %v, want %+v, %v", test.what, got, ok, test.want, test.ok)
		}
	}
}

// FuzzUpperIPv6 holds the walk against netstack's: where both find an upper layer, it is the same one.
func FuzzUpperIPv6(f *testing.F) {
	f.Add(ipv6(ProtoUDP, make([]byte, 8)...))
	f.Add(ipv6(ProtoHopByHop, 58, 0, 1, 4, 0, 0, 0, 0, 135, 0))
	f.Add(ipv6(ProtoFragment, 17, 0, 0, 8, 0, 0, 0, 7, 1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, ok := UpperIPv6(b)
		if u.Offset > len(b) || u.Offset != 0 && u.Offset < IPv6HeaderLen {
			t.Fatalf("the upper layer is at %d of %d", u.Offset, len(b))
		}
		if !ok || u.Proto == uint8(header.IPv6ExperimentExtHdrIdentifier) { // which netstack looks into
			return
		}
		it := header.MakeIPv6PayloadIterator(header.IPv6ExtensionHeaderIdentifier(b[6]), buffer.MakeWithData(b[IPv6HeaderLen:]))
		for {
			h, done, err := it.Next()
			if err != nil || done {
				return // it is stricter about what is inside the headers
			}
			raw, upper := h.(header.IPv6RawPayloadHeader)
			h.Release()
			if upper {
				if uint8(raw.Identifier) != u.Proto {
					t.Fatalf("the upper layer is %d, netstack says %d", u.Proto, raw.Identifier)
				}
				return
			}
		}
	})
}
