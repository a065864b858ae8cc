package forwarder

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
)

// FuzzError reads error queues' control messages, and builds what a container is told.
func FuzzError(f *testing.F) {
	message := func(level, kind int32, data []byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(data)))
		b[0], b[8], b[12] = byte(unix.CmsgLen(len(data))), byte(level), byte(kind)
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	unreachable := []byte{111, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 192, 0, 2, 1}
	tooBig := []byte{90, 0, 0, 0, unix.SO_EE_ORIGIN_LOCAL, 0, 0, 0, 0x78, 5, 0, 0, 0, 0, 0, 0}
	f.Add(message(unix.IPPROTO_IP, unix.IP_RECVERR, unreachable))
	f.Add(message(unix.IPPROTO_IP, unix.IP_RECVERR, tooBig))
	f.Add(message(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, append(unreachable, make([]byte, 16)...)))
	f.Fuzz(func(t *testing.T, oob []byte) {
		e, ok := parseError(oob)
		if !ok {
			return
		}
		if m := e.message(); len(m) != 8 || m[0] != e.icmp || m[1] != e.code {
			t.Errorf("%+v becomes %x", e, m)
		}
		if e.offender.IsValid() && e.offender.Is4() == e.v6 {
			t.Errorf("%+v has an offender of the other family", e)
		}
	})
}

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
