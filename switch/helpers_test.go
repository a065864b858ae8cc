package vswitch

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
)

// recorder is a device that keeps a copy of what it is given.
type recorder struct {
	mu     sync.Mutex
	frames [][]byte // Ethernet header and payload
	take   bool     // takes the payload, as the gateway does
	err    error
}

func (d *recorder) WriteFrame(f *Frame) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if d.take {
		v := f.StealPayload().View()
		defer v.Release()
		d.frames = append(d.frames, append(append([]byte(nil), f.Ethernet()...), v.AsSlice()...))
		return nil
	}
	b := append([]byte(nil), f.Ethernet()...)
	for _, p := range f.Payload {
		b = append(b, p...)
	}
	d.frames = append(d.frames, b)
	return nil
}

func (d *recorder) got() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.frames)
}

func (d *recorder) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.frames = nil
}

var errBroken = errors.New("broken device")

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0x42, 0, 0, 0, n} }

func ip4(n byte) netip.Addr { return netip.AddrFrom4([4]byte{172, 18, 0, n}) }

func ip6(n byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 15: n}) }

// guarded is the port of container n, with addresses 172.18.0.n and fd00::n.
func guarded(n byte) PortConfig {
	return PortConfig{Name: string('a' + rune(n)), MAC: mac(n), Addrs: []netip.Addr{ip4(n), ip6(n)}}
}

func connect(t testing.TB, sw *Switch, cfg PortConfig) (*Port, *recorder) {
	t.Helper()
	d := new(recorder)
	p, err := sw.Connect(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	return p, d
}

// frame makes a frame as a TAP's reader would.
func frame(dst, src net.HardwareAddr, etherType uint16, payload []byte) *Frame {
	f := new(Frame)
	copy(f.Ethernet(), dst)
	copy(f.Ethernet()[6:], src)
	binary.BigEndian.PutUint16(f.Ethernet()[12:], etherType)
	f.Fill(copy(f.Buffer(), payload))
	return f
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// packet makes an IP packet of the family of src.
func ipPacket(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		p := make([]byte, packet.IPv4HeaderLen, packet.IPv4HeaderLen+len(payload))
		p[0], p[8], p[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(p[2:], uint16(packet.IPv4HeaderLen+len(payload)))
		copy(p[12:], src.AsSlice())
		copy(p[16:], dst.AsSlice())
		checksum.Put(p[10:], ^checksum.Checksum(p, 0))
		return append(p, payload...)
	}
	p := make([]byte, packet.IPv6HeaderLen, packet.IPv6HeaderLen+len(payload))
	p[0], p[6], p[7] = 0x60, proto, 255
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, payload...)
}

func udp(src, dst uint16, data []byte) []byte {
	u := make([]byte, packet.UDPHeaderLen, packet.UDPHeaderLen+len(data))
	binary.BigEndian.PutUint16(u, src)
	binary.BigEndian.PutUint16(u[2:], dst)
	binary.BigEndian.PutUint16(u[4:], uint16(packet.UDPHeaderLen+len(data)))
	return append(u, data...)
}

func tcp(flags byte, seq uint32, data []byte) []byte {
	s := make([]byte, packet.TCPHeaderLen, packet.TCPHeaderLen+len(data))
	binary.BigEndian.PutUint16(s, 40000)
	binary.BigEndian.PutUint16(s[2:], 80)
	binary.BigEndian.PutUint32(s[tcpSeq:], seq)
	s[12], s[tcpFlags] = packet.TCPHeaderLen/4<<4, flags
	return append(s, data...)
}

func arp(op uint16, senderMAC net.HardwareAddr, sender, target netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, byte(op)}
	p = append(append(p, senderMAC...), sender.AsSlice()...)
	return append(append(p, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// nd makes a neighbour discovery message; opts are (type, MAC) options.
func nd(kind byte, target netip.Addr, opts ...[]byte) []byte {
	p := make([]byte, 8)
	p[0] = kind
	if target.IsValid() {
		p = append(p, target.AsSlice()...)
	}
	for _, o := range opts {
		p = append(p, o...)
	}
	return p
}

func linkOpt(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// extension puts an IPv6 extension header of eight bytes before a payload.
func extension(next byte, body [6]byte, payload []byte) []byte {
	return append(append([]byte{next, 0}, body[:]...), payload...)
}

// fragment6 puts a fragment header before a payload.
func fragment6(next byte, offset int, more bool, payload []byte) []byte {
	h := make([]byte, 8, 8+len(payload))
	h[0] = next
	binary.BigEndian.PutUint16(h[2:], uint16(offset))
	if more {
		h[3] |= 1
	}
	h[7] = 99
	return append(h, payload...)
}

// fragment4 makes an IPv4 packet a fragment.
func fragment4(p []byte, offset int, more bool) []byte {
	v := uint16(offset / 8)
	if more {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(p[4:], 77)
	binary.BigEndian.PutUint16(p[6:], v)
	return p
}

// withOptions puts IPv4 options (a multiple of four bytes) into a packet.
func withOptions(p, options []byte) []byte {
	q := append(append(append([]byte(nil), p[:packet.IPv4HeaderLen]...), options...), p[packet.IPv4HeaderLen:]...)
	q[0] += byte(len(options) / 4)
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	return q
}
