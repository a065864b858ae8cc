package vswitch

import (
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

// seed gives a fuzz target the frames of the guard's tests.
func seed(f *testing.F) {
	for _, c := range guardCases() {
		f.Add(append(append([]byte(nil), c.frame.Header[:]...), c.frame.Payload[0]...))
	}
	s := superFrame(EtherTypeIPv6, ipPacket(ip6(2), ip6(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 3000))), 1000)
	f.Add(append(append([]byte(nil), s.Header[:]...), s.Payload[0]...))
	s = superFrame(EtherTypeIPv4, ipPacket(ip4(2), ip4(3), packet.ProtoUDP, udp(1, 2, make([]byte, 3000))), 1000)
	f.Add(append(append([]byte(nil), s.Header[:]...), s.Payload[0]...))
}

func parse(b []byte) *Frame {
	if len(b) < HeaderLen || len(b) > HeaderLen+MaxPayload {
		return nil
	}
	f := new(Frame)
	copy(f.Header[:], b)
	f.Fill(copy(f.Buffer(), b[HeaderLen:]))
	return f
}

// FuzzGuard holds the guard to what it is for: what passes is from the port's own MAC, and an IP packet from one of
// its addresses.
func FuzzGuard(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := parse(b)
		if fr == nil {
			return
		}
		sw := New(Config{})
		port, _ := connect(t, sw, guarded(2))
		_, dev := connect(t, sw, guarded(3))
		port.Receive(fr)
		if dev.got() == 0 {
			return
		}
		if fr.src() != keyOf(me) {
			t.Fatalf("passed from %x", fr.src())
		}
		r, p := port.state.Load(), fr.Payload[0]
		switch fr.EtherType() {
		case EtherTypeIPv4:
			if src := p[12:16]; !r.has4(src) && !isZero(src) {
				t.Fatalf("passed from %v", src)
			}
		case EtherTypeIPv6:
			if src := p[8:24]; !r.has6(src) && !isZero(src) {
				t.Fatalf("passed from %v", src)
			}
		case EtherTypeARP:
			if keyOf(p[8:14]) != keyOf(me) || !r.has4(p[14:18]) && !isZero(p[14:18]) {
				t.Fatalf("passed ARP of %v at %v", p[14:18], p[8:14])
			}
		}
	})
}

// FuzzSegments cuts whatever claims to be a super-frame, checked or not.
func FuzzSegments(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := parse(b)
		if fr == nil {
			return
		}
		checked := fr.virtioOK()
		total := 0
		err := fr.Segments(func(s []byte) error {
			if total += len(s); len(s) > fr.Len() {
				t.Fatalf("a segment of %d bytes from a frame of %d", len(s), fr.Len())
			}
			return nil
		})
		if checked && err != nil {
			t.Fatalf("a frame that was checked is refused: %v", err)
		}
		if err == nil && total == 0 {
			t.Fatal("a frame became nothing")
		}
	})
}

// FuzzPorts sends one frame through all kinds of ports.
func FuzzPorts(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := parse(b)
		if fr == nil {
			return
		}
		sw := New(Config{MTU: 1500})
		open, _ := connect(t, sw, PortConfig{MAC: mac(2), Role: Learning})
		_, dev := connect(t, sw, PortConfig{MAC: gateway, Role: Gateway})
		dev.take = true
		connect(t, sw, guarded(3))
		open.Receive(fr)
		if s := open.Stats(); s.FramesIn != 1 {
			t.Fatalf("counted %+v", s)
		}
	})
}
