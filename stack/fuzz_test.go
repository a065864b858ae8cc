package stack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// mirror answers everything with itself, as a forwarder whose outside echoes.
type mirror struct {
	t *testing.T
	g *Gateway
}

func (m *mirror) HandleTCP(r *TCPRequest) {
	switch r.Dst.Port() % 4 {
	case 0:
		r.Refuse()
	case 1:
		r.Drop()
	case 2:
		r.Unreachable(true)
	default:
		if c, err := r.Accept(); err == nil {
			_ = c.Close()
		}
	}
}

func (m *mirror) HandleUDP(p packet.Datagram) bool {
	m.check(p)
	_ = m.g.WriteUDP(p.Dst, p.Src, [][]byte{p.Payload}, p.GSOSize)
	return p.Dst.Port() != 0
}

func (m *mirror) Flush() {}

func (m *mirror) HandleEcho(p packet.Datagram) bool {
	m.check(p)
	if len(p.Payload) < 8 {
		m.t.Errorf("an echo request of %d bytes", len(p.Payload))
	}
	_ = m.g.WriteICMP(p.Dst.Addr(), p.Src.Addr(), append([]byte(nil), p.Payload...))
	return true
}

// check is what a forwarder relies on.
func (m *mirror) check(p packet.Datagram) {
	if !p.Src.Addr().IsValid() || !p.Dst.Addr().IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() {
		m.t.Errorf("a packet from %s to %s", p.Src, p.Dst)
	}
}

// fuzzPacket completes what a fuzzer cannot guess: lengths and checksums, of the kind that how asks for. The rest is
// its own.
func fuzzPacket(how uint8, b []byte) (etherType uint16, p []byte) {
	p = append([]byte(nil), b...)
	src4, dst4 := tcpip.AddrFrom4([4]byte{10, 9, 0, 7}), tcpip.AddrFrom4([4]byte{192, 0, 2, 1})
	src6, dst6 := tcpip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: 7}),
		tcpip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 15: 1})
	protocols := []tcpip.TransportProtocolNumber{header.TCPProtocolNumber, header.UDPProtocolNumber,
		header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber}
	proto := protocols[how>>1&3]
	sum := func(src, dst tcpip.Address) {
		at := map[tcpip.TransportProtocolNumber]int{header.TCPProtocolNumber: 16, header.UDPProtocolNumber: 6,
			header.ICMPv4ProtocolNumber: 2, header.ICMPv6ProtocolNumber: 2}[proto]
		if len(p) < at+2 {
			return
		}
		binary.BigEndian.PutUint16(p[at:], 0)
		initial := uint16(0)
		if proto != header.ICMPv4ProtocolNumber {
			initial = header.PseudoHeaderChecksum(proto, src, dst, uint16(len(p)))
		}
		binary.BigEndian.PutUint16(p[at:], ^checksum.Checksum(p, initial))
	}
	switch {
	case how&0x80 != 0: // the headers are the fuzzer's
		if how&1 == 0 {
			return vswitch.EtherTypeIPv4, p
		}
		return vswitch.EtherTypeIPv6, p
	case how&1 == 0:
		sum(src4, dst4)
		h := make([]byte, header.IPv4MinimumSize)
		header.IPv4(h).Encode(&header.IPv4Fields{TotalLength: uint16(len(h) + len(p)), TTL: how, Protocol: uint8(proto),
			SrcAddr: src4, DstAddr: dst4})
		header.IPv4(h).SetChecksum(^header.IPv4(h).CalculateChecksum())
		return vswitch.EtherTypeIPv4, append(h, p...)
	}
	sum(src6, dst6)
	h := make([]byte, header.IPv6MinimumSize)
	header.IPv6(h).Encode(&header.IPv6Fields{PayloadLength: uint16(len(p)), TransportProtocol: proto, HopLimit: how,
		SrcAddr: src6, DstAddr: dst6})
	return vswitch.EtherTypeIPv6, append(h, p...)
}

// FuzzGateway gives the gateway packets of all kinds as a container sends them, through the switch.
func FuzzGateway(f *testing.F) {
	f.Add(uint8(2), []byte{0x10, 0, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'})
	f.Add(uint8(3), []byte{0x10, 0, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'})
	f.Add(uint8(4), []byte{8, 0, 0, 0, 0, 1, 0, 1, 'p', 'i', 'n', 'g'})
	f.Add(uint8(7), []byte{128, 0, 0, 0, 0, 1, 0, 1, 'p', 'i', 'n', 'g'})
	syn := make([]byte, header.TCPMinimumSize)
	header.TCP(syn).Encode(&header.TCPFields{SrcPort: 1000, DstPort: 80, DataOffset: header.TCPMinimumSize,
		Flags: header.TCPFlagSyn, WindowSize: 1000})
	f.Add(uint8(0), syn)
	f.Add(uint8(1), syn)
	for offset := range byte(16) { // data offsets that are too small, too large, or right
		f.Add(uint8(0), append(append(append([]byte(nil), syn[:header.TCPDataOffset]...), offset<<4),
			syn[header.TCPDataOffset+1:]...))
	}
	f.Add(uint8(0x80), append([]byte{0x4f}, make([]byte, 60)...))
	f.Add(uint8(0x81), solicitation(netip.MustParseAddr("fd09::7"), netip.MustParseAddr("fd09::1")))
	g, sw := newNetwork(f)
	guarded, unguarded := station(f, sw, 7, true), station(f, sw, 8, false)
	f.Fuzz(func(t *testing.T, how uint8, b []byte) {
		if len(b) > 2000 {
			return
		}
		g.SetHandler(&mirror{t, g})
		etherType, p := fuzzPacket(how, b)
		frame := func(from byte) *vswitch.Frame {
			f := linkFrame(tcpip.LinkAddress(linkMAC(1)), linkMAC(from), etherType, p)
			if how&0x40 != 0 {
				copy(f.Header[:vswitch.VirtioHeaderLen], b) // a super-frame, or what pretends to be one
			}
			return f
		}
		guarded.Receive(frame(7))
		unguarded.Receive(frame(8))
	})
}
