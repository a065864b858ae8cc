package handover

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// fakeManager is a service manager that writes down what its store is told.
type fakeManager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newFakeManager(t *testing.T) *fakeManager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &fakeManager{t, c, path}
}

func (m *fakeManager) store(limit int, stored ...ID) *Store {
	m.t.Helper()
	s, err := openStore(m.path, limit, slog.New(slog.DiscardHandler), stored)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = unix.Close(s.manager) })
	return s
}

// told returns the next message as + or - and the name, and closes its descriptors.
func (m *fakeManager) told() string {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
	if err != nil {
		m.t.Fatal(err)
	}
	fds, err := sockio.ParseRights(oob[:oobn])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	state := string(b[:n])
	_, name, _ := strings.Cut(state, "FDNAME=")
	switch {
	case strings.HasPrefix(state, "FDSTORE=1\nFDPOLL=0\n") && len(fds) == 1:
		return "+" + name
	case strings.HasPrefix(state, "FDSTOREREMOVE=1\n") && len(fds) == 0:
		return "-" + name
	}
	return fmt.Sprintf("%q with %d descriptors", state, len(fds))
}

// quiet fails the test where the manager was told something.
func (m *fakeManager) quiet() {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(-time.Second))
	if n, _, err := m.conn.ReadFromUnix(make([]byte, 4096)); err == nil {
		m.t.Errorf("%d bytes are told that nobody wanted told", n)
	}
}

func TestPortsGoBeforeAllElseInTheStore(t *testing.T) {
	levelWhenDone(t)
	m := newFakeManager(t)
	fd := file(t, "x")
	defer unix.Close(fd)
	port := func(i int) ID { return ID{Kind: Published, Name: fmt.Sprintf("tcp-0.0.0.0-%d", i)} }
	tap := func(i int) ID { return ID{Kind: TAP, Container: fmt.Sprint(i)} }
	s := m.store(3, tap(0))
	var got []string
	tell := func(n int) {
		for range n {
			got = append(got, m.told())
		}
	}
	s.Put(tap(0), fd) // it is there
	s.Put(tap(1), fd)
	s.Put(port(1), fd)
	tell(2)
	s.Put(tap(2), fd) // it is full
	s.Put(port(2), fd)
	tell(2) // one gives way
	s.Put(port(3), fd)
	tell(2)
	s.Put(port(1), fd) // anew, since the socket may be another
	s.Put(port(4), fd) // nothing gives way: the manager decides
	tell(2)
	s.Remove(port(1))
	tell(1)
	s.Put(ID{Kind: Published, Name: "a:b"}, fd)
	s.Remove(ID{Kind: Published, Name: "a:b"})
	m.quiet()
	gave := []string{got[2], got[4]}
	slices.Sort(gave)
	got[2], got[4] = "-TAP", "-TAP"
	want := []string{
		"+" + tap(1).String(), "+" + port(1).String(), "-TAP", "+" + port(2).String(), "-TAP", "+" + port(3).String(),
		"+" + port(1).String(), "+" + port(4).String(), "-" + port(1).String(),
	}
	if !slices.Equal(got, want) || !slices.Equal(gave, []string{"-" + tap(0).String(), "-" + tap(1).String()}) {
		t.Errorf("told %q, of which %q gave way\nwant %q", got, gave, want)
	}
}

func TestAStoreOfUnknownSizeHasPortsOnly(t *testing.T) {
	m := newFakeManager(t)
	fd := file(t, "x")
	defer unix.Close(fd)
	s := m.store(0)
	s.Put(ID{Kind: TAP, Container: "c"}, fd)
	m.quiet()
	s.Put(ID{Kind: Published, Name: "p"}, fd)
	if got := m.told(); got != "+usernet/published///p" {
		t.Error(got)
	}
}

func TestBarrierWaitsForTheManager(t *testing.T) {
	levelWhenDone(t)
	m := newFakeManager(t)
	s := m.store(3)
	done := make(chan struct{})
	go func() { s.Barrier(); close(done) }()
	if got := m.told(); got != `"BARRIER=1" with 1 descriptors` { // which it closes
		t.Error(got)
	}
	<-done
}
