package daemon

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// procNet is an address as /proc/PID/net/tcp and tcp6 have it on a machine of this byte order.
func procNet(address string) string {
	a := netip.MustParseAddrPort(address)
	var text strings.Builder
	for word := range slices.Chunk(a.Addr().AsSlice(), 4) {
		fmt.Fprintf(&text, "%08X", binary.NativeEndian.Uint32(word))
	}
	return fmt.Sprintf("%s:%04X", &text, a.Port())
}

func TestEstablishedTCP(t *testing.T) {
	const own, peer, own6, peer6 = "172.17.0.2:40000", "192.0.2.100:80", "[fd00::2]:40000", "[2001:db8::100]:443"
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && procNet(own) != "020011AC:9C40" {
		t.Errorf("a little-endian kernel does not print %s", procNet(own)) // as Linux on amd64 does
	}
	for _, test := range []struct{ name, line, local, remote string }{
		{"heading", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid", "", ""},
		{"established", "   1: " + procNet(own) + " " + procNet(peer) + " 01 00000000:00000000 00:00000000 00000000  0",
			own, peer},
		{"listening", "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0", "", ""},
		{"waiting for nothing", "   0: " + procNet(own) + " " + procNet(peer) +
			" 06 00000000:00000000 00:00000000 00000000  0", "", ""},
		{"half closed", "   0: " + procNet(own) + " " + procNet(peer) + " 08 00000000:00000000", own, peer},
		{"IPv6", "   0: " + procNet(own6) + " " + procNet(peer6) + " 01 0", own6, peer6},
		{"IPv4 in IPv6", "   0: " + procNet("[::ffff:172.17.0.2]:80") + " " + procNet("[::ffff:192.0.2.100]:40000") +
			" 01 0", "172.17.0.2:80", "192.0.2.100:40000"},
		{"too short", "   0: 0200:9C40 " + procNet(peer) + " 01 0", "", ""},
		{"no numbers", "   0: x:y z 01", "", ""},
		{"empty", "", "", ""},
	} {
		local, remote, ok := establishedTCP(test.line)
		if ok != (test.local != "") || ok && (local.String() != test.local || remote.String() != test.remote) {
			t.Errorf("%s: %s, %s, %v", test.name, local, remote, ok)
		}
	}
}

func FuzzEstablishedTCP(f *testing.F) {
	f.Add("   1: 020011AC:9C40 640200C0:0050 01 00000000:00000000 00:00000000 00000000  0")
	f.Fuzz(func(_ *testing.T, line string) { establishedTCP(line) })
}
