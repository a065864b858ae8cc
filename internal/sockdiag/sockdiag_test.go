package sockdiag

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAddressesAreWhole: sockets are told with the addresses that they are bound to, of both families.
func TestAddressesAreWhole(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for at, of := range map[string]struct {
		network string
		family  uint8
	}{
		"127.0.0.1:0": {"tcp4", unix.AF_INET}, "0.0.0.0:0": {"tcp4", unix.AF_INET}, "[::1]:0": {"tcp6", unix.AF_INET6},
	} {
		l, err := net.Listen(of.network, at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var list []netip.AddrPort
		add := func(a netip.AddrPort) { list = append(list, a) }
		if err := Listening(fd, of.family, unix.IPPROTO_TCP, add); err != nil {
			t.Fatal(err)
		}
		want := l.Addr().(*net.TCPAddr).AddrPort()
		if !slices.Contains(list, want) {
			t.Errorf("%s is not among %v", want, list)
		}
	}
}

func FuzzParse(f *testing.F) {
	message := func(kind uint16, body []byte) []byte {
		b := make([]byte, sizeNlmsghdr, sizeNlmsghdr+len(body))
		binary.NativeEndian.PutUint32(b, uint32(sizeNlmsghdr+len(body)))
		binary.NativeEndian.PutUint16(b[4:], kind)
		return append(b, body...)
	}
	f.Add(message(unix.SOCK_DIAG_BY_FAMILY, make([]byte, sizeAnswer)))
	f.Add(message(unix.NLMSG_DONE, nil))
	f.Add(message(unix.NLMSG_ERROR, []byte{0xff, 0xff, 0xff, 0xff}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parse(b, func(netip.AddrPort) {}) // it must end, and not panic
	})
}
