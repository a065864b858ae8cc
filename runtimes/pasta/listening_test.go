package pasta

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockdiag"
)

// TestListeningSocketsAreSeen opens and closes sockets of each kind and asks the kernel.
func TestListeningSocketsAreSeen(t *testing.T) {
	fd, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			proto, at := uint8(unix.IPPROTO_TCP), "127.0.0.1:0"
			if network[3] == '6' {
				at = "[::1]:0"
			}
			var port int
			var end func() error
			if network[0] == 'u' {
				proto = unix.IPPROTO_UDP
				c, err := net.ListenPacket(network, at)
				if err != nil {
					t.Fatal(err)
				}
				port, end = c.LocalAddr().(*net.UDPAddr).Port, c.Close
			} else {
				l, err := net.Listen(network, at)
				if err != nil {
					t.Fatal(err)
				}
				port, end = l.Addr().(*net.TCPAddr).Port, l.Close
			}
			set, err := listening(fd, proto, netip.Addr{})
			if err != nil || !set.has(uint16(port)) {
				t.Errorf("port %d is not seen (%v)", port, err)
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if set, err = listening(fd, proto, netip.Addr{}); err != nil || set.has(uint16(port)) {
				t.Errorf("port %d is seen after its end (%v)", port, err)
			}
		})
	}
}

// TestTheNameServerIsLeftOut, and nothing else that listens.
func TestTheNameServerIsLeftOut(t *testing.T) {
	fd, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, at := range []string{"127.0.0.11:0", "127.0.0.12:0"} {
		l, err := net.Listen("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		set, err := listening(fd, unix.IPPROTO_TCP, netip.MustParseAddr("127.0.0.11"))
		if err != nil {
			t.Fatal(err)
		}
		a := l.Addr().(*net.TCPAddr)
		if got, want := set.has(uint16(a.Port)), at == "127.0.0.12:0"; got != want {
			t.Errorf("%s is seen: %t, want %t", a, got, want)
		}
	}
}
