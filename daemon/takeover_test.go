package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
)

// isOpen says whether fd is still what it was, as what nowhere returns.
func isOpen(fd int) bool {
	is, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
	return err == nil && strings.Contains(is, "memfd:handed")
}

// nowhere is a descriptor that leads nowhere.
func nowhere(t *testing.T) int {
	t.Helper()
	fd, err := unix.MemfdCreate("handed", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestWhatNobodyTakesIsClosed starts a daemon with descriptors of containers that it does not have, and of kinds that it does
// not know.
func TestWhatNobodyTakesIsClosed(t *testing.T) {
	for name, dir := range map[string]string{"a daemon": t.TempDir(), "one that cannot start": os.DevNull} {
		t.Run(name, func(t *testing.T) {
			tap := api.SandboxFile{Kind: api.FileTAP, Container: "c", Endpoint: "e", Interface: "eth0"}
			files := []api.SandboxFile{tap, tap, {Kind: api.FileDNSPacket, Container: "c"}, {Kind: api.FileDNSListener, Container: "c"}, {Kind: "new", Container: "c"}}
			for i := range files {
				files[i].FD = nowhere(t)
			}
			d, err := New(Config{StateDir: dir, Sandboxes: files, Logger: slog.New(slog.DiscardHandler)})
			for _, f := range files {
				if isOpen(f.FD) {
					t.Errorf("%+v is open", f)
					_ = unix.Close(f.FD)
				}
			}
			if err == nil {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			} else if dir != os.DevNull {
				t.Error(err)
			}
		})
	}
}

func TestHandedIsTakenOnce(t *testing.T) {
	tap := api.SandboxFile{Kind: api.FileTAP, Container: "c", Endpoint: "e", Interface: "eth0"}
	first, second := tap, tap
	first.FD, second.FD = nowhere(t), nowhere(t)
	h := newHanded([]api.SandboxFile{first, second})
	if isOpen(first.FD) {
		t.Error("of two for the same, the first stays open")
	}
	for _, other := range []api.SandboxFile{{Kind: api.FileTAP}, {Kind: api.FileTAP, Container: "c", Endpoint: "other", Interface: "eth0"}, {Kind: api.FileTAP, Container: "c", Endpoint: "e", Interface: "eth1"}} {
		if fd, ok := h.take(other); ok {
			t.Errorf("%+v is taken for %d", other, fd)
		}
	}
	fd, ok := h.take(tap)
	if !ok || fd != second.FD {
		t.Errorf("got %d, %v", fd, ok)
	}
	if _, ok := h.take(tap); ok {
		t.Error("taken twice")
	}
	h.close()
	if !isOpen(fd) {
		t.Error("what was taken is closed")
	}
	_ = unix.Close(fd)
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
		s, err := openStub(test.packet, test.listener)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v, want an error with %q", name, s, err, test.says)
		}
		if now := descriptors(t); now != before-2 {
			t.Errorf("%s: %d descriptors are open, %d were before with those two", name, now, before)
		}
	}
	var none *stub
	none.pause()
	none.close()
}
