package engine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nowhere is a descriptor that is no socket.
func nowhere(t *testing.T) int {
	t.Helper()
	fd, err := unix.MemfdCreate("nowhere", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestOpenStubRefuses gives it descriptors that are no stub's.
func TestOpenStubRefuses(t *testing.T) {
	descriptor := func(socket any, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := copyOf(socket)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	packet := func() int { return descriptor(pc, err) }
	ln, err2 := net.Listen("tcp", "127.0.0.1:0")
	listener := func() int { return descriptor(ln, err2) }
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	defer ln.Close()
	for name, test := range map[string]struct {
		packet, listener int
		says             string
	}{
		"elsewhere":             {packet(), listener(), "instead of 127.0.0.11:53"},
		"the other way round":   {listener(), packet(), "does not listen"},
		"no socket for packets": {listener(), listener(), "UDP socket"},
		"no sockets":            {nowhere(t), nowhere(t), "does not listen"},
		"no socket and one":     {nowhere(t), listener(), "UDP socket"},
	} {
		before := descriptors(t)
		s, err := OpenStub(test.packet, test.listener, netip.MustParseAddrPort("127.0.0.11:53"))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v, want an error with %q", name, s, err, test.says)
		}
		if now := descriptors(t); now != before-2 {
			t.Errorf("%s: %d descriptors are open, %d were before with those two", name, now, before)
		}
	}
	var none *Stub
	none.Pause()
	none.Close()
}
