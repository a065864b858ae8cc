package fabric

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

// TestEncapsulations holds the headers to the RFCs' figures, and each to taking what it wrote.
func TestEncapsulations(t *testing.T) {
	frame := bytes.Repeat([]byte{0xee}, vswitch.EthernetHeaderLen)
	for _, test := range []struct {
		encap Encap
		port  uint16
		want  []byte // of VNI 0x123456
	}{
		{VXLAN, 4789, []byte{8, 0, 0, 0, 0x12, 0x34, 0x56, 0}},
		{Geneve, 6081, []byte{0, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0}},
		{GREInUDP, 4754, []byte{0x20, 0, 0x65, 0x58, 0, 0x12, 0x34, 0x56}},
	} {
		b := make([]byte, vxlanHeaderLen)
		test.encap.put(b, 0x123456)
		if !bytes.Equal(b, test.want) {
			t.Errorf("%v: header % x, want % x", test.encap, b, test.want)
		}
		if test.encap.Port() != test.port {
			t.Errorf("%v: port %d, want %d", test.encap, test.encap.Port(), test.port)
		}
		for _, e := range []Encap{VXLAN, Geneve, GREInUDP} {
			vni, got, ok := e.parse(append(bytes.Clone(b), frame...))
			if ok != (e == test.encap) || ok && (vni != 0x123456 || !bytes.Equal(got, frame)) {
				t.Errorf("%v as %v: %x, % x, %v", test.encap, e, vni, got, ok)
			}
			if _, _, ok := e.parse(append(bytes.Clone(b), frame[1:]...)); ok {
				t.Errorf("%v as %v: half an Ethernet header is taken", test.encap, e)
			}
		}
		if e, err := ParseEncap(test.encap.String()); e != test.encap || err != nil {
			t.Errorf("%v by its name: %v, %v", test.encap, e, err)
		}
	}
	for _, name := range []string{"", "gre", "VXLAN", "stt"} {
		if _, err := ParseEncap(name); err == nil {
			t.Errorf("%q is an encapsulation", name)
		}
	}
	if _, err := ParseEncap("gre"); !strings.Contains(err.Error(), "IP protocol 47") {
		t.Errorf("GRE is refused without the reason: %v", err)
	}
}

// TestGeneveOptions are passed over, but for those that have to be understood (RFC 8926, section 3.4).
func TestGeneveOptions(t *testing.T) {
	frame := bytes.Repeat([]byte{0xee}, vswitch.EthernetHeaderLen)
	header := func(first, second byte, options int) []byte {
		b := make([]byte, geneveHeaderLen+options)
		Geneve.put(b, 7)
		b[0], b[1] = first, second
		return append(b, frame...)
	}
	for _, test := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"two words of options", header(2, 0, 8), true},
		{"as many as there can be", header(63, 0, 252), true},
		{"more than came", header(3, 0, 8), false},
		{"one that is critical", header(2, 0x40, 8), false},
		{"a control message", header(0, 0x80, 0), false},
		{"bits of the future", header(0, 0x3f, 0), true},
		{"another version", header(0x40, 0, 0), false},
	} {
		vni, got, ok := Geneve.parse(test.b)
		if ok != test.ok || ok && (vni != 7 || !bytes.Equal(got, frame)) {
			t.Errorf("%s: %d, % x, %v", test.name, vni, got, ok)
		}
	}
	other := header(0, 0, 0)
	binary.BigEndian.PutUint16(other[2:], 0x0800)
	if _, _, ok := Geneve.parse(other); ok {
		t.Error("a packet without Ethernet is taken")
	}
}

// TestFramesCrossInEachEncapsulation between two fabrics, whole, also where they are cut and put together again.
func TestFramesCrossInEachEncapsulation(t *testing.T) {
	for _, encap := range []Encap{VXLAN, Geneve, GREInUDP} {
		t.Run(encap.String(), func(t *testing.T) {
			left, right := newNetns(t), newNetns(t)
			veth(t, left, right, "u0", "u1", 1500)
			left.ip(t, "addr add 10.99.0.1/24 dev u0")
			right.ip(t, "addr add 10.99.0.2/24 dev u1")
			open := func(n *netns, peer string, id byte) *station {
				var f *Fabric
				must(t, n.in(func() (err error) {
					f, err = New(Config{Host: hostA, Listen: netip.AddrPortFrom(netip.Addr{}, encap.Port()),
						Encap: encap})
					return err
				}))
				t.Cleanup(func() { must(t, f.Close()) })
				sw := vswitch.New(vswitch.Config{Name: "ov", MTU: 1450})
				t.Cleanup(func() { _ = sw.Close() })
				plug(t, f, sw, NetworkConfig{
					Name: "ov", VNI: testVNI, MTU: 1450,
					Foreign: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(peer), 0)},
				})
				return newStation(t, sw, id, 1450)
			}
			a, b := open(left, "10.99.0.2", 2), open(right, "10.99.0.1", 3)
			stream(t, a.netns, b.netns, b.addrs[0], 4<<20)
			stream(t, b.netns, a.netns, a.addrs[1], 4<<20)
			burstOfDatagrams(t, a.netns, b.netns, b.addrs[0])
			datagrams(t, b.netns, a.netns, a.addrs[0], a.addrs[0], 60000)
		})
	}
}

// TestHostsSpeakVXLAN: an encapsulation for foreign peers takes no key.
func TestHostsSpeakVXLAN(t *testing.T) {
	f, err := New(Config{Host: hostA, Encap: Geneve, Key: seal.NewKey()})
	if err == nil {
		err = errors.Join(errors.New("it is opened"), f.Close())
		t.Error(err)
	}
}
