package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// ipv6 is a packet with the given extension headers and upper layer.
func ipv6(first uint8, rest ...byte) []byte {
	h := make([]byte, IPv6HeaderLen, IPv6HeaderLen+len(rest))
	h[0], h[6], h[7] = 0x60, first, DefaultTTL
	h[4], h[5] = byte(len(rest)>>8), byte(len(rest))
	return append(h, rest...)
}

func TestParseIPv6(t *testing.T) {
	options := func(next uint8) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} } // padded by PadN
	fragment := func(next, offset byte) []byte { return []byte{next, 0, 0, offset << 3, 0, 0, 0, 7} }
	for _, test := range []struct {
		what string
		p    []byte
		want Headers
		ok   bool
	}{
		{"UDP at once", ipv6(ProtoUDP, make([]byte, 8)...), Headers{Proto: ProtoUDP, Transport: 40}, true},
		{"behind options", ipv6(ProtoHopByHop, append(options(ProtoICMPv6), 135, 0)...),
			Headers{Proto: ProtoICMPv6, Transport: 48}, true},
		{"behind options twice", ipv6(ProtoDstOpts, append(options(ProtoDstOpts), append(options(ProtoTCP), 1)...)...),
			Headers{Proto: ProtoTCP, Transport: 56}, true},
		{"a first fragment", ipv6(ProtoFragment, fragment(ProtoUDP, 0)...), Headers{Proto: ProtoUDP, Transport: 48},
			true},
		{"a later fragment", ipv6(ProtoFragment, fragment(ProtoUDP, 1)...),
			Headers{Proto: ProtoUDP, Transport: 48, Later: true}, true},
		{"behind authentication", ipv6(ProtoAH, append([]byte{ProtoUDP, 4, 0, 0, 0, 0, 0, 1}, make([]byte, 24)...)...),
			Headers{Proto: ProtoUDP, Transport: 64}, true},
		{"behind a route that has been gone", ipv6(ProtoRouting, ProtoTCP, 0, 0, 0, 0, 0, 0, 0),
			Headers{Proto: ProtoTCP, Transport: 48}, true},
		{"behind a route that goes on", ipv6(ProtoRouting, ProtoTCP, 0, 0, 1, 0, 0, 0, 0),
			Headers{Proto: ProtoTCP, Transport: 48, Routing: true}, true},
		{"no packet", []byte{0x60}, Headers{}, false},
		{"another version", append([]byte{0x45}, make([]byte, 60)...), Headers{}, false},
		{"options cut short", ipv6(ProtoHopByHop, 17, 0), Headers{Proto: ProtoHopByHop, Transport: 40}, false},
		{"options longer than the packet", ipv6(ProtoHopByHop, 17, 9, 0, 0, 0, 0, 0, 0),
			Headers{Proto: ProtoHopByHop, Transport: 40}, false},
		{"options for ever", ipv6(ProtoHopByHop, make([]byte, 200)...), Headers{Proto: ProtoHopByHop, Transport: 104},
			false},
	} {
		h, ok := ParseIPv6(test.p)
		got := Headers{Proto: h.Proto, Transport: h.Transport, Later: h.Later, Routing: h.Routing}
		if ok != test.ok || ok && (got != test.want || !h.V6 || h.Length != len(test.p)) {
			t.Errorf("%s: %+v, %v, want %+v, %v", test.what, h, ok, test.want, test.ok)
		}
	}
}

// FuzzParseIPv6 holds the walk against netstack's: where both find a transport, it is the same one.
func FuzzParseIPv6(f *testing.F) {
	f.Add(ipv6(ProtoUDP, make([]byte, 8)...))
	f.Add(ipv6(ProtoHopByHop, 58, 0, 1, 4, 0, 0, 0, 0, 135, 0))
	f.Add(ipv6(ProtoFragment, 17, 0, 0, 8, 0, 0, 0, 7, 1, 2))
	f.Add(ipv6(ProtoAH, append([]byte{ProtoUDP, 4}, make([]byte, 40)...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseIPv6(b)
		if h.Transport > len(b) || h.Transport != 0 && h.Transport < IPv6HeaderLen || h.Fragment && !h.Later &&
			h.Offset != 0 {
			t.Fatalf("of %d bytes: %+v", len(b), h)
		}
		if ok && h.Fragment {
			h.FragmentID(b)
		}
		if !ok || h.Proto == uint8(header.IPv6ExperimentExtHdrIdentifier) { // which netstack looks into
			return
		}
		payload := b[IPv6HeaderLen:min(h.Length, len(b))]
		it := header.MakeIPv6PayloadIterator(header.IPv6ExtensionHeaderIdentifier(b[6]), buffer.MakeWithData(payload))
		for {
			next, done, err := it.Next()
			if err != nil || done {
				return // it is stricter about what is inside the headers
			}
			raw, upper := next.(header.IPv6RawPayloadHeader)
			next.Release()
			if !upper {
				continue
			}
			if uint8(raw.Identifier) != h.Proto && raw.Identifier != ProtoAH { // which netstack does not know
				t.Fatalf("the transport is %d, netstack says %d", h.Proto, raw.Identifier)
			}
			return
		}
	})
}

// ipv4 is a packet with options and a transport header.
func ipv4(proto uint8, options, rest []byte) []byte {
	h := make([]byte, IPv4HeaderLen, IPv4HeaderLen+len(options)+len(rest))
	h[0], h[8], h[9] = 0x40|byte(5+len(options)/4), DefaultTTL, proto
	binary.BigEndian.PutUint16(h[2:], uint16(cap(h)))
	return append(append(h, options...), rest...)
}

func TestParse(t *testing.T) {
	tcp := make([]byte, TCPHeaderLen)
	tcp[12] = 5 << 4
	long := append([]byte(nil), tcp...)
	long[12] = 15 << 4
	fragment := func(p []byte, field uint16) []byte {
		binary.BigEndian.PutUint16(p[6:], field)
		return p
	}
	for _, test := range []struct {
		what string
		v6   bool
		p    []byte
		want Headers
		ok   bool
	}{
		{"TCP", false, ipv4(ProtoTCP, nil, tcp), Headers{Proto: ProtoTCP, Transport: 20, Payload: 40}, true},
		{"TCP over IPv6", true, ipv6(ProtoTCP, tcp...), Headers{V6: true, Proto: ProtoTCP, Transport: 40, Payload: 60},
			true},
		{"UDP behind options", false, ipv4(ProtoUDP, make([]byte, 8), make([]byte, 9)),
			Headers{Proto: ProtoUDP, Transport: 28, Payload: 36}, true},
		{"ICMP", false, ipv4(ProtoICMP, nil, []byte{8}), Headers{Proto: ProtoICMP, Transport: 20, Payload: 20}, true},
		{"a first fragment", false, fragment(ipv4(ProtoUDP, nil, make([]byte, 8)), 0x2000),
			Headers{Proto: ProtoUDP, Transport: 20, Payload: 28, Fragment: true, MoreFragments: true}, true},
		{"a later fragment", false, fragment(ipv4(ProtoUDP, nil, []byte{1}), 2),
			Headers{Proto: ProtoUDP, Transport: 20, Payload: 20, Fragment: true, Later: true, Offset: 16}, true},
		{"TCP cut short", false, ipv4(ProtoTCP, nil, tcp[:19]), Headers{}, false},
		{"TCP options cut short", false, ipv4(ProtoTCP, nil, long), Headers{}, false},
		{"UDP cut short", true, ipv6(ProtoUDP, 1, 2), Headers{}, false},
		{"the other version", true, ipv4(ProtoUDP, nil, make([]byte, 40)), Headers{}, false},
		{"a header of less than itself", false, []byte{0x44, 19: 0}, Headers{}, false},
		{"nothing", false, nil, Headers{}, false},
	} {
		h, ok := Parse(test.v6, test.p)
		if test.want.Length = len(test.p); ok != test.ok || ok && h != test.want {
			t.Errorf("%s: %+v, %v, want %+v, %v", test.what, h, ok, test.want, test.ok)
		}
	}
}

// FuzzParseUDP holds what is taken over of a datagram against the walk over all headers.
func FuzzParseUDP(f *testing.F) {
	f.Add(false, ipv4(ProtoUDP, nil, []byte{0, 1, 0, 2, 0, 10, 0, 0, 'h', 'i'}), 0)
	f.Add(true, ipv6(ProtoUDP, 0, 1, 0, 2, 0, 10, 0, 0, 'h', 'i'), 0)
	f.Add(true, ipv6(ProtoUDP, 0, 1, 0, 2, 0, 0, 0, 0, 'h', 'i', 'j'), 2)
	f.Fuzz(func(t *testing.T, v6 bool, b []byte, segment int) {
		var d Datagram
		if !d.ParseUDP(v6, b, segment) {
			return
		}
		h, ok := Parse(v6, b)
		if !ok || h.Fragment || h.Proto != ProtoUDP || h.Length > len(b) {
			t.Fatalf("%x is taken over: %+v, %v", b, h, ok)
		}
		src, dst := h.Addrs(b)
		if !bytes.Equal(d.Src.Addr().AsSlice(), src) || !bytes.Equal(d.Dst.Addr().AsSlice(), dst) {
			t.Errorf("from %s to %s", d.Src, d.Dst)
		}
		if !bytes.Equal(d.Original, b[:h.Payload]) || len(d.Payload) > h.Length-h.Payload || segment != 0 &&
			len(d.Payload) != h.Length-h.Payload {
			t.Errorf("%d bytes of payload, %d to quote: %+v", len(d.Payload), len(d.Original), h)
		}
	})
}

// TestHotPathsAllocateNothing is what happens to each frame.
func TestHotPathsAllocateNothing(t *testing.T) {
	p4 := ipv4(ProtoUDP, nil, []byte{0, 1, 0, 2, 0, 10, 0, 0, 'h', 'i'})
	p6 := ipv6(ProtoHopByHop, append([]byte{ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 8)...)...)
	src, dst := netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")
	var b [MaxUDPHeaders]byte
	var d Datagram
	for what, f := range map[string]func(){
		"a walk":     func() { Parse(false, p4); Parse(true, p6) },
		"a datagram": func() { d.ParseUDP(false, p4, 0) },
		"headers":    func() { PutUDP(b[:], src, dst, 100) },
	} {
		if n := testing.AllocsPerRun(100, f); n > 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	p := ipv4(ProtoUDP, nil, make([]byte, 100))
	b.ReportAllocs()
	for b.Loop() {
		Parse(false, p)
	}
}

func BenchmarkPutUDP(b *testing.B) {
	src, dst := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	var h [MaxUDPHeaders]byte
	b.ReportAllocs()
	for b.Loop() {
		PutUDP(h[:], src, dst, 100)
	}
}
