package vswitch

import (
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

func BenchmarkForward(b *testing.B) {
	sw := New(Config{MTU: 1500})
	p, _ := connect(b, sw, guarded(2))
	p.floods.Burst = 1 << 60 // all broadcasts are written
	for n := byte(3); n < 100; n++ {
		if _, err := sw.Connect(guarded(n), sink{}); err != nil {
			b.Fatal(err)
		}
	}
	for name, f := range map[string]*Frame{
		"small IPv4": frame(mac(3), mac(2), EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(0, 1, nil))),
		"IPv6 super-frame": superFrame(EtherTypeIPv6,
			ipPacket(ip6(2), ip6(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 60000))), 1440),
		"broadcast to 97": frame(broadcast, mac(2), EtherTypeARP, arp(1, mac(2), ip4(2), ip4(3))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(f.Len()))
			for b.Loop() {
				p.Receive(f)
			}
		})
	}
}

func BenchmarkSegments(b *testing.B) {
	f := superFrame(EtherTypeIPv4, ipPacket(ip4(2), ip4(3), packet.ProtoTCP, tcp(0, 1, make([]byte, 60000))), 1460)
	b.ReportAllocs()
	b.SetBytes(int64(f.Len()))
	for b.Loop() {
		if err := f.Segments(func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLinked(b *testing.B) {
	l := newLinkedPorts(b, true)
	for _, d := range l.devs {
		d.err = errBroken // it keeps nothing
	}
	f := frame(mac(3), mac(2), EtherTypeIPv4, ipPacket(ip4(2), ip4(3), packet.ProtoTCP, segment(4000, 80, tcpACK)))
	b.ReportAllocs()
	for b.Loop() {
		l.web.Receive(f)
	}
}
