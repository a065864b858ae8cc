package daemon

import (
	"encoding/binary"
	"testing"
)

func TestEstablishedTCP(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Log("the lines below are a little-endian kernel's")
		return
	}
	for _, test := range []struct{ name, line, local, remote string }{
		{"heading", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid", "", ""},
		{"established", "   1: 020011AC:9C40 640200C0:0050 01 00000000:00000000 00:00000000 00000000  0", "172.17.0.2:40000", "192.0.2.100:80"},
		{"listening", "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0", "", ""},
		{"waiting for nothing", "   0: 020011AC:9C40 640200C0:0050 06 00000000:00000000 00:00000000 00000000  0", "", ""},
		{"half closed", "   0: 020011AC:9C40 640200C0:0050 08 00000000:00000000", "172.17.0.2:40000", "192.0.2.100:80"},
		{"IPv6", "   0: 000000FD000000000000000002000000:9C40 B80D0120000000000000000000010000:01BB 01 0", "[fd00::2]:40000", "[2001:db8::100]:443"},
		{"IPv4 in IPv6", "   0: 0000000000000000FFFF0000020011AC:0050 0000000000000000FFFF0000640200C0:9C40 01 0", "172.17.0.2:80", "192.0.2.100:40000"},
		{"too short", "   0: 0200:9C40 640200C0:0050 01 0", "", ""},
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
