package tap

import (
	"io"
	"net"
	"testing"

	vswitch "github.com/usernet/usernet/switch"
)

// BenchmarkStream is one TCP stream between two sandboxes at an MTU of 1500.
func BenchmarkStream(b *testing.B) {
	for name, opts := range kinds {
		b.Run(name, func(b *testing.B) {
			c := benchStations(b, opts)
			buf := make([]byte, 1<<20)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRoundTrip is one byte there and back.
func BenchmarkRoundTrip(b *testing.B) {
	c := benchStations(b, kinds["offloaded"])
	buf := make([]byte, 1)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// benchStations returns a connection between two sandboxes. The far end sends single bytes back and drops the rest.
func benchStations(b *testing.B, opts Options) net.Conn {
	sw := vswitch.New(vswitch.Config{MTU: 1500})
	x, y := newStation(b, sw, 1, 1500, opts), newStation(b, sw, 2, 1500, opts)
	l := y.listen(y.addrs[0])
	go func() {
		peer, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = peer.Close() }()
		buf := make([]byte, 256<<10)
		for {
			n, err := peer.Read(buf)
			if err != nil {
				return
			}
			if n == 1 {
				if _, err := peer.Write(buf[:1]); err != nil {
					return
				}
			}
		}
	}()
	return x.dial(l.Addr().String())
}
