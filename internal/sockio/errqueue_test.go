package sockio

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzError reads error queues' control messages.
func FuzzError(f *testing.F) {
	message := func(level, kind int32, data []byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(data)))
		b[0], b[8], b[12] = byte(unix.CmsgLen(len(data))), byte(level), byte(kind)
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	unreachable := []byte{111, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 192, 0, 2,
		1}
	tooBig := []byte{90, 0, 0, 0, unix.SO_EE_ORIGIN_LOCAL, 0, 0, 0, 0x78, 5, 0, 0, 0, 0, 0, 0}
	f.Add(message(unix.IPPROTO_IP, unix.IP_RECVERR, unreachable))
	f.Add(message(unix.IPPROTO_IP, unix.IP_RECVERR, tooBig))
	f.Add(message(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, append(unreachable, make([]byte, 16)...)))
	f.Fuzz(func(t *testing.T, oob []byte) {
		e, ok := ParseError(oob)
		if ok && e.Offender.IsValid() && e.Offender.Is4() == e.V6 {
			t.Errorf("%+v has an offender of the other family", e)
		}
	})
}
