package packet

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestICMPErrors holds types and codes against another list of them.
func TestICMPErrors(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for problem, want := range map[Problem]struct {
		type4 header.ICMPv4Type
		code4 header.ICMPv4Code
		type6 header.ICMPv6Type
		code6 header.ICMPv6Code
	}{
		NetUnreachable: {header.ICMPv4DstUnreachable, header.ICMPv4NetUnreachable, header.ICMPv6DstUnreachable,
			header.ICMPv6NetworkUnreachable},
		HostUnreachable: {header.ICMPv4DstUnreachable, header.ICMPv4HostUnreachable, header.ICMPv6DstUnreachable,
			header.ICMPv6AddressUnreachable},
		PortUnreachable: {header.ICMPv4DstUnreachable, header.ICMPv4PortUnreachable, header.ICMPv6DstUnreachable,
			header.ICMPv6PortUnreachable},
		TooBig: {header.ICMPv4DstUnreachable, header.ICMPv4FragmentationNeeded, header.ICMPv6PacketTooBig,
			header.ICMPv6UnusedCode},
		Prohibited: {header.ICMPv4DstUnreachable, header.ICMPv4AdminProhibited, header.ICMPv6DstUnreachable,
			header.ICMPv6Prohibited},
		HopsExceeded: {header.ICMPv4TimeExceeded, header.ICMPv4TTLExceeded, header.ICMPv6TimeExceeded,
			header.ICMPv6HopLimitExceeded},
	} {
		m4, m6 := header.ICMPv4(ICMPError(problem, v4, []byte("original"))),
			header.ICMPv6(ICMPError(problem, v6, []byte("original")))
		if m4.Type() != want.type4 || m4.Code() != want.code4 || string(m4[ErrorHeaderLen:]) != "original" {
			t.Errorf("problem %d: ICMP %x", problem, []byte(m4))
		}
		if m6.Type() != want.type6 || m6.Code() != want.code6 || string(m6[ErrorHeaderLen:]) != "original" {
			t.Errorf("problem %d: ICMPv6 %x", problem, []byte(m6))
		}
	}
}
