package stack

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// recorder keeps the datagrams that reach a Handler.
type recorder struct{ got []packet.Datagram }

func (r *recorder) HandleTCP(t *TCPRequest)         { t.Drop() }
func (r *recorder) HandleEcho(packet.Datagram) bool { return true }
func (r *recorder) Flush()                          {}
func (r *recorder) HandleUDP(p packet.Datagram) bool {
	p.Payload, p.Original = bytes.Clone(p.Payload), bytes.Clone(p.Original)
	r.got = append(r.got, p)
	return true
}

// tapDevice keeps the frames that a port writes.
type tapDevice struct{ frames []vswitch.Frame }

func (d *tapDevice) WriteFrame(f *vswitch.Frame) error {
	c := vswitch.Frame{Header: f.Header, Payload: [][]byte{slices.Concat(f.Payload...)}}
	d.frames = append(d.frames, c)
	return nil
}

var (
	stationMAC = net.HardwareAddr{2, 0x42, 172, 30, 0, 2}
	gatewayMAC = net.HardwareAddr{2, 0x42, 172, 30, 0, 1}
)

// beside makes a gateway with a recording handler, and a station on its network.
func beside(t *testing.T) (*Gateway, *recorder, *vswitch.Port, *tapDevice) {
	t.Helper()
	sw := vswitch.New(vswitch.Config{Name: "test", MTU: 1500})
	r, d := &recorder{}, &tapDevice{}
	g, err := New(Config{
		MAC: gatewayMAC, MTU: 1500, Switch: sw,
		Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24"), netip.MustParsePrefix("fd00::1/64")},
	})
	if err != nil {
		t.Fatal(err)
	}
	g.SetHandler(r)
	station := []netip.Addr{netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("fd00::2")}
	p, err := sw.Connect(vswitch.PortConfig{Name: "station", MAC: stationMAC, Addrs: station}, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range station {
		g.SetNeighbor(a, stationMAC)
	}
	t.Cleanup(func() {
		_ = g.Close()
		_ = sw.Close()
	})
	return g, r, p, d
}

// TestDatagramsRoundTrip sends what the gateway writes to a station back to the gateway, with the ends exchanged.
func TestDatagramsRoundTrip(t *testing.T) {
	for _, test := range []struct {
		name, src, dst string
		size, segment  int
	}{
		{"IPv4", "192.0.2.1:53", "172.30.0.2:4000", 100, 0},
		{"IPv4, empty", "192.0.2.1:53", "172.30.0.2:4000", 0, 0},
		{"IPv4, as much as fits", "192.0.2.1:53", "172.30.0.2:4000", 1472, 0},
		{"IPv4, several", "192.0.2.1:53", "172.30.0.2:4000", 5000, 1200},
		{"IPv6", "[2001:db8::1]:53", "[fd00::2]:4000", 100, 0},
		{"IPv6, several", "[2001:db8::1]:53", "[fd00::2]:4000", 5000, 1232},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, r, p, d := beside(t)
			src, dst := netip.MustParseAddrPort(test.src), netip.MustParseAddrPort(test.dst)
			payload := bytes.Repeat([]byte("datagram"), test.size/8+1)[:test.size]
			if err := g.WriteUDP(src, dst, [][]byte{payload}, test.segment); err != nil {
				t.Fatal(err)
			}
			if len(d.frames) != 1 {
				t.Fatalf("%d frames", len(d.frames))
			}
			f := d.frames[0]
			b := f.Payload[0]
			swap(f.Ethernet()[:6], f.Ethernet()[6:12])
			if dst.Addr().Is4() {
				swap(b[12:16], b[16:20])
				swap(b[20:22], b[22:24])
			} else {
				swap(b[8:24], b[24:40])
				swap(b[40:42], b[42:44])
			}
			p.Receive(&f)
			if len(r.got) != 1 {
				t.Fatalf("%d datagrams came back", len(r.got))
			}
			got := r.got[0]
			if got.Src != dst || got.Dst != src || got.TTL != packet.DefaultTTL || !got.DontFragment || got.GSOSize !=
				test.segment || !bytes.Equal(got.Payload, payload) {
				t.Errorf("came back as %+v", got)
			}
			if len(got.Original) != len(b)-len(payload) {
				t.Errorf("an error would quote %d bytes", len(got.Original))
			}
		})
	}
}

func swap(a, b []byte) {
	c := bytes.Clone(a)
	copy(a, b)
	copy(b, c)
}

// TestDatagramsForNetstack are those that the short way leaves alone; none may be lost or doubled.
func TestDatagramsForNetstack(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(b []byte) []byte
		want   int // how many reach the Handler, by way of netstack
	}{
		{"as it is", func(b []byte) []byte { return b }, 1},
		{"fragment", func(b []byte) []byte { b[6] = 0x20; return b }, 0},
		{"length beyond the frame", func(b []byte) []byte { binary.BigEndian.PutUint16(b[2:], 2000); return b }, 0},
		{"UDP length beyond the packet", func(b []byte) []byte { binary.BigEndian.PutUint16(b[24:], 2000); return b },
			0},
		{"UDP length too short", func(b []byte) []byte { binary.BigEndian.PutUint16(b[24:], 7); return b }, 0},
		{"UDP length shorter than the packet",
			func(b []byte) []byte { binary.BigEndian.PutUint16(b[24:], 12); return b }, 1},
		{"padding behind it", func(b []byte) []byte { return append(b, make([]byte, 20)...) }, 1},
		{"not version 4", func(b []byte) []byte { b[0] = 0x55; return b }, 0},
		{"cut short", func(b []byte) []byte { return b[:24] }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, r, p, d := beside(t)
			src, dst := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("172.30.0.2:4000")
			if err := g.WriteUDP(src, dst, [][]byte{[]byte("datagram")}, 0); err != nil {
				t.Fatal(err)
			}
			f := d.frames[0]
			b := f.Payload[0]
			f.PutVirtio(vswitch.Virtio{})
			swap(f.Ethernet()[:6], f.Ethernet()[6:12])
			swap(b[12:16], b[16:20])
			swap(b[20:22], b[22:24])
			b[26], b[27] = 0, 0 // no checksum (RFC 768)
			f.Payload[0] = test.change(b)
			p.Receive(&f)
			if len(r.got) != test.want {
				t.Errorf("%d datagrams reach the handler, want %d", len(r.got), test.want)
			}
		})
	}
}
