package sandbox

import (
	"net"
	"net/netip"
	"testing"
)

func TestBoundExactlyTellsOneAddressFromAll(t *testing.T) {
	for _, network := range []string{"udp4", "tcp4"} {
		for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
			port := uint16(0)
			if network == "udp4" {
				c, err := net.ListenPacket(network, host+":0")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				port = uint16(c.LocalAddr().(*net.UDPAddr).Port)
			} else {
				l, err := net.Listen(network, host+":0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				port = uint16(l.Addr().(*net.TCPAddr).Port)
			}
			got, err := boundExactly(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
			if want := host == "127.0.0.1"; err != nil || got != want {
				t.Errorf("%s at %s: bound exactly %v, %v", network, host, got, err)
			}
		}
	}
}

// FuzzSocketTable reads what is no table of the kernel's.
func FuzzSocketTable(f *testing.F) {
	at := netip.MustParseAddrPort("127.0.0.11:53")
	f.Add([]byte("  sl  local_address rem_address\n 1: 0B00007F:0035 00000000:0000 07\n"))
	f.Add([]byte("\n:\n0B00007F:0035"))
	f.Fuzz(func(t *testing.T, table []byte) {
		if listsLocal(table, at) && len(table) < len("0B00007F:0035") {
			t.Error("found where there is no room for it")
		}
	})
}
