package fabric

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

const testVNI = 4711

var (
	hostA = overlay.HostID("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	hostB = overlay.HostID("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	hostC = overlay.HostID("cccccccccccccccccccccccccccccccc")
	hostD = overlay.HostID("dddddddddddddddddddddddddddddddd")

	gatewayMAC  = net.HardwareAddr{2, 0x42, 10, 9, 0, 1}
	gatewayAddr = netip.MustParseAddr("10.9.0.1")
	gateway6    = netip.MustParseAddr("fd09::1")
)

// received is a frame as a container's TAP would have it.
type received struct {
	virtio  vswitch.Virtio
	eth     []byte
	payload []byte
}

// guest is a container: a device that keeps what it gets.
type guest struct {
	mac  overlay.MAC
	ip4  netip.Addr
	ip6  netip.Addr
	port *vswitch.Port

	mu  sync.Mutex
	got []received
}

func (g *guest) WriteFrame(f *vswitch.Frame) error {
	r := received{virtio: f.Virtio(), eth: bytes.Clone(f.Ethernet())}
	for _, p := range f.Payload {
		r.payload = append(r.payload, p...)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = append(g.got, r)
	return nil
}

func (g *guest) take() []received {
	g.mu.Lock()
	defer g.mu.Unlock()
	got := g.got
	g.got = nil
	return got
}

// await polls for n frames.
func (g *guest) await(t *testing.T, n int) []received {
	t.Helper()
	var got []received
	waitFor(t, "frames", func() bool {
		got = append(got, g.take()...)
		return len(got) >= n
	})
	return got
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within a minute", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// side is one host: a fabric, a switch with one container, and a link of one network.
type side struct {
	fabric *Fabric
	sw     *vswitch.Switch
	link   *Link
	guest  *guest
	host   overlay.HostID
}

func newSide(t *testing.T, host overlay.HostID, number byte, change ...func(*NetworkConfig)) *side {
	t.Helper()
	return newSideAt(t, Config{Host: host, Listen: netip.MustParseAddrPort("127.0.0.1:0")}, number, change...)
}

func newSideAt(t *testing.T, cfg Config, number byte, change ...func(*NetworkConfig)) *side {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := &side{fabric: f, host: cfg.Host, sw: vswitch.New(vswitch.Config{Name: "ov"})}
	t.Cleanup(func() { _ = s.sw.Close() })
	net := NetworkConfig{Name: "ov", VNI: testVNI, GatewayMAC: gatewayMAC,
		Gateways: []netip.Addr{gatewayAddr, gateway6}}
	for _, c := range change {
		c(&net)
	}
	if s.link, err = f.Open(net); err != nil {
		t.Fatal(err)
	}
	port, err := s.sw.Connect(s.link.PortConfig(), s.link)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.link.Serve(port) }()
	t.Cleanup(func() { s.link.Stop(); <-done })
	waitFor(t, "served link", func() bool { return s.link.port.Load() != nil })
	s.guest = &guest{
		mac: overlay.MAC{2, 0x42, 10, 9, 0, number},
		ip4: netip.AddrFrom4([4]byte{10, 9, 0, number}),
		ip6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: number}),
	}
	s.guest.port, err = s.sw.Connect(vswitch.PortConfig{
		Name:  "c",
		MAC:   s.guest.mac[:],
		Addrs: []netip.Addr{s.guest.ip4, s.guest.ip6},
	}, s.guest)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *side) peer() Peer {
	return Peer{Host: s.host, Addrs: s.fabric.Addrs(), Key: s.fabric.PublicKey()}
}

func (s *side) entry() Entry {
	return Entry{MAC: s.guest.mac, Addrs: []netip.Addr{s.guest.ip4, s.guest.ip6}, Host: s.host}
}

// meet tells hosts of each other.
func meet(t *testing.T, sides ...*side) {
	t.Helper()
	for _, s := range sides {
		var peers []Peer
		var entries []Entry
		for _, o := range sides {
			peers, entries = append(peers, o.peer()), append(entries, o.entry())
		}
		if err := s.fabric.SetPeers(peers); err != nil {
			t.Fatal(err)
		}
		s.entries(t, entries...)
	}
}

func (s *side) entries(t *testing.T, entries ...Entry) {
	t.Helper()
	macs, err := s.link.SetEntries(entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.sw.Ports() {
		if p.Role == vswitch.Fabric {
			s.sw.SetStatic(s.link.port.Load(), macs)
		}
	}
}

// frame makes a frame.
func frame(dst, src overlay.MAC, etherType uint16, payload []byte) *vswitch.Frame {
	var f vswitch.Frame
	copy(f.Ethernet(), dst[:])
	copy(f.Ethernet()[6:], src[:])
	binary.BigEndian.PutUint16(f.Ethernet()[12:], etherType)
	f.Payload = [][]byte{payload}
	return &f
}

// tcp4 is a TCP packet with a right checksum.
func tcp4(src, dst netip.Addr, seq uint32, data []byte) []byte {
	return ipPacket(src, dst, packet.ProtoTCP, tcpSegment(seq, data))
}

func tcpSegment(seq uint32, data []byte) []byte {
	t := make([]byte, tcpHeaderLen, tcpHeaderLen+len(data))
	binary.BigEndian.PutUint16(t, 1000)
	binary.BigEndian.PutUint16(t[2:], 2000)
	binary.BigEndian.PutUint32(t[tcpSeq:], seq)
	t[12], t[tcpFlags] = 5<<4, tcpACK
	return append(t, data...)
}

func udpDatagram(data []byte) []byte {
	u := make([]byte, packet.UDPHeaderLen, packet.UDPHeaderLen+len(data))
	binary.BigEndian.PutUint16(u, 1000)
	binary.BigEndian.PutUint16(u[2:], 2000)
	binary.BigEndian.PutUint16(u[udpLength:], uint16(packet.UDPHeaderLen+len(data)))
	return append(u, data...)
}

// ipPacket puts an IP header before a TCP or UDP one, and makes the checksums.
func ipPacket(src, dst netip.Addr, proto byte, l4 []byte) []byte {
	head := packet.QuoteIP(src, dst, proto, len(l4))
	et := uint16(vswitch.EtherTypeIPv6)
	if src.Is4() {
		sumIPv4(head)
		et = vswitch.EtherTypeIPv4
	}
	p := append(head, l4...)
	h, ok := parseInner(et, p)
	if !ok {
		panic("no packet")
	}
	if h.transport() {
		at := p[h.l4+h.check():]
		checksum.Put(at, 0)
		checksum.Put(at, nonZero(^checksum.Checksum(p[h.l4:], checksum.Combine(h.pseudo(p), uint16(len(l4))))))
	}
	return p
}

// super makes a TCP or UDP packet a super-frame of segments of size bytes.
func super(f *vswitch.Frame, size int) *vswitch.Frame {
	p := f.Payload[0]
	h, _ := parseInner(f.EtherType(), p)
	v := vswitch.Virtio{
		NeedsChecksum:  true,
		GSOSize:        uint16(size),
		ChecksumStart:  uint16(vswitch.EthernetHeaderLen + h.l4),
		ChecksumOffset: uint16(h.check()),
		HeaderLen:      uint16(vswitch.EthernetHeaderLen + h.data),
		GSO:            vswitch.GSOUDP,
	}
	if h.proto == packet.ProtoTCP {
		v.GSO = vswitch.GSOTCPv4
		if h.v6 {
			v.GSO = vswitch.GSOTCPv6
		}
	}
	checksum.Put(p[h.l4+h.check():], checksum.Combine(h.pseudo(p), uint16(h.length-h.l4)))
	f.PutVirtio(v)
	return f
}

// pattern is n bytes that differ from place to place.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
