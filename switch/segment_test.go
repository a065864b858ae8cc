package vswitch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
)

// superFrame makes a super-frame of a packet, cut every size bytes.
func superFrame(etherType uint16, p []byte, size int) *Frame {
	f := frame(mac(3), mac(2), etherType, p)
	h, ok := parseIP(etherType, p)
	if !ok {
		panic("not a packet")
	}
	v := Virtio{NeedsChecksum: true, GSOSize: uint16(size), ChecksumStart: uint16(EthernetHeaderLen + h.Transport),
		ChecksumOffset: uint16(h.ChecksumOffset())}
	switch {
	case h.Proto == packet.ProtoUDP:
		v.GSO = GSOUDP
	case h.V6:
		v.GSO = GSOTCPv6
	default:
		v.GSO = GSOTCPv4
	}
	f.PutVirtio(v)
	return f
}

// slowSum is RFC 1071's checksum as the RFC writes it.
func slowSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// verify checks one frame's lengths and checksums, and returns its headers and transport payload.
func verify(t *testing.T, b []byte) (packet.Headers, []byte) {
	t.Helper()
	p := b[EthernetHeaderLen:]
	h, ok := parseIP(binary.BigEndian.Uint16(b[12:]), p)
	if !ok || h.Length != len(p) {
		t.Fatalf("a segment of %d bytes says it has %d (%v)", len(p), h.Length, ok)
	}
	pseudo := append([]byte{0, h.Proto}, binary.BigEndian.AppendUint16(nil, uint16(len(p)-h.Transport))...)
	if h.V6 {
		pseudo = append(pseudo, p[8:40]...)
	} else {
		pseudo = append(pseudo, p[12:20]...)
		if slowSum(p[:h.Transport]) != 0xffff {
			t.Fatal("wrong IPv4 header checksum")
		}
	}
	if slowSum(append(pseudo, p[h.Transport:]...)) != 0xffff {
		t.Fatal("wrong transport checksum")
	}
	if h.Proto == packet.ProtoUDP && int(binary.BigEndian.Uint16(p[h.Transport+4:])) != len(p)-h.Transport {
		t.Fatal("wrong UDP length")
	}
	return h, p[h.Payload:]
}

func TestSuperFramesAreCutIntoWholeSegments(t *testing.T) {
	data := make([]byte, 40001)
	for i := range data {
		data[i] = byte(i * 7)
	}
	const flags = tcpFIN | tcpPSH | tcpCWR | 0x10
	for name, f := range map[string]*Frame{
		"TCP over IPv4": superFrame(EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(flags, 0xfffffff0, data)), 1460),
		"TCP over IPv6": superFrame(EtherTypeIPv6,
			ipPacket(ip6(2), ip6(3), packet.ProtoTCP, tcp(flags, 5, data)), 1440),
		"TCP behind options": superFrame(EtherTypeIPv6,
			ipPacket(ip6(2), ip6(3), packet.ProtoDstOpts,
				extension(packet.ProtoTCP, [6]byte{1, 4}, tcp(flags, 5, data))), 1000),
		"UDP over IPv4": superFrame(EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoUDP, udp(1, 2, data)), 1001),
		"UDP over IPv6": superFrame(EtherTypeIPv6,
			ipPacket(ip6(2), ip6(3), packet.ProtoUDP, udp(1, 2, data)), 512),
		"segments larger than itself": superFrame(EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(flags, 5, data)), 65535),
	} {
		t.Run(name, func(t *testing.T) {
			size := int(f.Virtio().GSOSize)
			var joined []byte
			var n, fins, cwrs int
			var first uint32
			if err := f.Segments(func(b []byte) error {
				h, part := verify(t, b)
				if h.Proto == packet.ProtoTCP {
					l4 := b[EthernetHeaderLen+h.Transport:]
					seq := binary.BigEndian.Uint32(l4[tcpSeq:])
					if n == 0 {
						first = seq
					}
					if seq != first+uint32(len(joined)) {
						t.Errorf("segment %d has sequence number %d", n, seq)
					}
					if l4[tcpFlags]&(tcpFIN|tcpPSH) != 0 {
						fins = n
					}
					if l4[tcpFlags]&tcpCWR != 0 {
						cwrs++
					}
				}
				joined = append(joined, part...)
				n++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if want := (len(data) + size - 1) / size; n != want || !bytes.Equal(joined, data) {
				t.Errorf("%d segments, want %d, or other bytes", n, want)
			}
			if f.Virtio().GSO != GSOUDP && (fins != n-1 || cwrs != 1) {
				t.Errorf("FIN and PSH in segment %d of %d, CWR in %d", fins, n, cwrs)
			}
		})
	}
}

func TestChecksumLeftToTheReceiverIsCompleted(t *testing.T) {
	p := ipPacket(ip4(2), ip4(3), packet.ProtoUDP, udp(7, 8, []byte("some data")))
	pseudo := append([]byte{0, packet.ProtoUDP, 0, byte(len(p) - packet.IPv4HeaderLen)}, p[12:20]...)
	checksum.Put(p[packet.IPv4HeaderLen+6:], slowSum(pseudo))
	f := frame(mac(3), mac(2), EtherTypeIPv4, p)
	f.PutVirtio(Virtio{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 6})
	if f.Plain() {
		t.Error("a frame without its checksum calls itself plain")
	}
	if err := f.Segments(func(b []byte) error {
		verify(t, b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSegmentsStopAtTheFirstError(t *testing.T) {
	f := superFrame(EtherTypeIPv4, ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 5000))), 1000)
	n := 0
	if err := f.Segments(func([]byte) error { n++; return errBroken }); !errors.Is(err, errBroken) || n != 1 {
		t.Errorf("%v after %d segments, want the device's error after one", err, n)
	}
}

func TestLyingVirtioHeadersAreDropped(t *testing.T) {
	good := Virtio{NeedsChecksum: true, GSO: GSOTCPv4, HeaderLen: 54, GSOSize: 1000, ChecksumStart: 34,
		ChecksumOffset: 16}
	for name, lie := range map[string]func(v *Virtio, f *Frame){
		"the truth":                      func(*Virtio, *Frame) {},
		"checksum start inside Ethernet": func(v *Virtio, _ *Frame) { v.ChecksumStart = 13 },
		"checksum start elsewhere":       func(v *Virtio, _ *Frame) { v.ChecksumStart = 36 },
		"checksum past the end":          func(v *Virtio, _ *Frame) { v.GSO = GSONone; v.ChecksumStart = 60000 },
		"checksum offset past the end":   func(v *Virtio, _ *Frame) { v.GSO = GSONone; v.ChecksumOffset = 65535 },
		"checksum offset of UDP":         func(v *Virtio, _ *Frame) { v.ChecksumOffset = 6 },
		"segments of no size":            func(v *Virtio, _ *Frame) { v.GSOSize = 0 },
		"segments without checksum":      func(v *Virtio, _ *Frame) { v.NeedsChecksum = false },
		"the other family":               func(v *Virtio, _ *Frame) { v.GSO = GSOTCPv6 },
		"the other protocol":             func(v *Virtio, _ *Frame) { v.GSO = GSOUDP },
		"thousands of tiny segments":     func(v *Virtio, _ *Frame) { v.GSOSize = 2 },
		"UDP fragmentation":              func(v *Virtio, _ *Frame) { v.GSO = 3 },
		"unknown segmentation":           func(v *Virtio, _ *Frame) { v.GSO = 99 },
		"ECN without segmentation":       func(v *Virtio, _ *Frame) { v.GSO = GSONone; v.ECN = true },
		"headers longer than the frame":  func(v *Virtio, _ *Frame) { v.HeaderLen = 65000 },
		"a super-frame without payload":  func(v *Virtio, f *Frame) { f.Fill(40); f.Payload[0][3] = 40 },
		"an ARP super-frame":             func(_ *Virtio, f *Frame) { f.Header[VirtioHeaderLen+13] = 6 },
		"a fragment":                     func(_ *Virtio, f *Frame) { f.Payload[0][6] = 0x20 },
	} {
		t.Run(name, func(t *testing.T) {
			sw := New(Config{})
			p, _ := connect(t, sw, guarded(2))
			_, dev := connect(t, sw, guarded(3))
			f := frame(mac(3), mac(2), EtherTypeIPv4,
				ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 5000))))
			v := good
			lie(&v, f)
			f.PutVirtio(v)
			p.Receive(f)
			if want := name == "the truth"; (dev.got() == 1) != want || (p.Stats().Drops[DropVirtio] == 0) != want {
				t.Errorf("%d frames verdictPass, drops %v", dev.got(), p.Stats().Drops)
			}
		})
	}
	t.Run("unknown flags", func(t *testing.T) {
		f := frame(mac(3), mac(2), 0x88b5, nil)
		f.Header[0] = 0x80
		if f.virtioOK() {
			t.Error("passed")
		}
	})
}

func TestVirtioHeaderSurvivesTheFrame(t *testing.T) {
	for _, v := range []Virtio{
		{},
		{NeedsChecksum: true, DataValid: true, ECN: true, GSO: GSOTCPv6, HeaderLen: 1, GSOSize: 2, ChecksumStart: 3,
			ChecksumOffset: 4},
		{GSO: GSOUDP, GSOSize: 65535},
	} {
		var f Frame
		f.PutVirtio(v)
		if got := f.Virtio(); got != v {
			t.Errorf("put %+v, got %+v", v, got)
		}
	}
}
