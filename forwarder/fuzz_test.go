package forwarder

import (
	"net/netip"
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

// FuzzQuote builds the datagrams that errors quote.
func FuzzQuote(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, []byte{10, 0, 0, 1}, uint16(1), uint16(2), 100)
	f.Add(make([]byte, 16), make([]byte, 16), uint16(1), uint16(2), 65507)
	f.Fuzz(func(t *testing.T, a, b []byte, from, to uint16, size int) {
		src, ok1 := netip.AddrFromSlice(a)
		dst, ok2 := netip.AddrFromSlice(b)
		if !ok1 || !ok2 || src.Is4() != dst.Is4() || size < 0 || size > 65507 {
			return
		}
		q := packet.QuoteUDP(netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to), size)
		want := 28
		if src.Is6() {
			want = 48
		}
		if len(q) < want {
			t.Errorf("%d bytes are quoted, too few for the headers", len(q))
		}
	})
}
