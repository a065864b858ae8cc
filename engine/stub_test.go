package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/leak"
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
		"elsewhere":             {packet(), listener(), "instead of one port of 127.0.0.11"},
		"the other way round":   {listener(), packet(), "does not listen"},
		"no socket for packets": {listener(), listener(), "UDP socket"},
		"no sockets":            {nowhere(t), nowhere(t), "does not listen"},
		"no socket and one":     {nowhere(t), listener(), "UDP socket"},
	} {
		given, before := leak.Files(t, test.packet, test.listener), leak.Descriptors(t)
		s, err := OpenStub(StubFiles{test.packet, test.listener, -1}, netip.MustParseAddr("127.0.0.11"))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v, want an error with %q", name, s, err, test.says)
		}
		leak.Closed(t, given...)
		before.NoneLeft(t)
	}
	var none *Stub
	none.Pause()
	none.Close()
}

// TestStubsAreTakenWhole gives parts of a stub, and looks for descriptors that are left open.
func TestStubsAreTakenWhole(t *testing.T) {
	for _, has := range [][3]bool{{true}, {false, true}, {false, false, true}, {true, false, true}, {false, true, true},
		{true, true, true}} {
		before := leak.Descriptors(t)
		fds := [3]int{-1, -1, -1}
		for i, one := range has {
			if one {
				fds[i] = nowhere(t)
			}
		}
		if s, err := OpenStub(StubFiles{fds[0], fds[1], fds[2]}, netip.MustParseAddr("127.0.0.11")); err == nil {
			t.Errorf("%v: a stub %v", has, s)
		}
		before.NoneLeft(t)
	}
}

// TestStubCopiesAreAStub opens a stub of the copies of another.
func TestStubCopiesAreAStub(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	rules := os.NewFile(uintptr(nowhere(t)), "rules")
	own := leak.Files(t, int(rules.Fd()))
	before := leak.Descriptors(t)
	s := NewStub(pc, ln, rules)
	f, err := s.Copies()
	if err != nil || f.Rules < 0 {
		t.Fatal(f, err)
	}
	other, err := OpenStub(f, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if copies := before.New(t); len(copies) != 3 {
		t.Errorf("the copy of a stub has %v", copies)
	}
	s.Close()
	other.Close()
	leak.Closed(t, own...)
	before.NoneLeft(t)
	for socket, name := range map[io.Closer]string{pc: "UDP", ln: "TCP"} {
		if err := socket.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the %s socket was left open: %v", name, err)
		}
	}
}
