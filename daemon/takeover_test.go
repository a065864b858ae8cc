package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/handover"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/bgp"
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

// TestWhatNobodyTakesIsClosed starts a daemon with descriptors of containers and connections that it does not have,
// with sockets that are none, and with files of kinds that it does not know; also one that fails to start, at each
// point at which it can fail.
func TestWhatNobodyTakesIsClosed(t *testing.T) {
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "usernet.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := t.TempDir()
	first, err := New(Config{StateDir: inUse, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, test := range map[string]struct {
		cfg   Config
		fails bool
	}{
		"a daemon":                    {cfg: Config{StateDir: t.TempDir()}},
		"one without a directory":     {cfg: Config{}, fails: true},
		"one whose directory is none": {cfg: Config{StateDir: os.DevNull}, fails: true},
		"one with a damaged store":    {cfg: Config{StateDir: damaged}, fails: true},
		"one whose store is in use":   {cfg: Config{StateDir: inUse}, fails: true},
		"one with no router's address": {cfg: Config{StateDir: t.TempDir(), BGP: &bgp.Config{
			Neighbors: []bgp.Neighbor{{}}}}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, all := test.cfg, map[string]int{}
			cfg.Logger, cfg.Received = slog.New(slog.DiscardHandler), &handover.Set{}
			for _, id := range []handover.ID{
				{Kind: handover.TAP, Container: "c", Endpoint: "e", Name: "eth0"},
				stubID(handover.DNSPacket, "c"), stubID(handover.DNSListener, "c"),
				{Kind: "new", Container: "c"}, {Kind: handover.Inherited}, {Kind: handover.Published,
					Name: "tcp-0.0.0.0-80"},
			} {
				all[id.String()] = nowhere(t)
				cfg.Received.Put(id, all[id.String()])
			}
			cfg.Flows = []handover.Flow{
				{Network: "n", State: []byte("{}"), Count: 2, FDs: []int{nowhere(t), nowhere(t)}},
			}
			all["inside of a connection"], all["outside of a connection"] = cfg.Flows[0].FDs[0], cfg.Flows[0].FDs[1]
			d, err := New(cfg)
			for what, fd := range all {
				if isOpen(fd) {
					t.Errorf("%s is open", what)
					_ = unix.Close(fd)
				}
			}
			if (err != nil) != test.fails {
				t.Errorf("starting: %v", err)
			}
			if err == nil {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// memoryStore is a Sink that only remembers what it has.
type memoryStore struct {
	mu       sync.Mutex
	stored   map[handover.ID]bool
	barriers int
}

func (m *memoryStore) Put(id handover.ID, _ int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stored[id] = true
}

func (m *memoryStore) Remove(id handover.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.stored, id)
}

func (m *memoryStore) Barrier() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.barriers++
}

// TestWhatNobodyTakesIsRemovedFromTheStore starts a daemon with what an earlier one had stored of a container that is
// gone.
func TestWhatNobodyTakesIsRemovedFromTheStore(t *testing.T) {
	tap := handover.ID{Kind: handover.TAP, Container: "c", Endpoint: "e", Name: "eth0"}
	m := &memoryStore{stored: map[handover.ID]bool{tap: true}}
	set := &handover.Set{}
	set.Put(tap, nowhere(t))
	d, err := New(Config{StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Received: set, FDStore: m})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.stored) != 0 || m.barriers != 1 {
		t.Errorf("%v is stored after %d barriers, want nothing after 1", m.stored, m.barriers)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// has says whether the store has the TAP of an endpoint.
func (m *memoryStore) has(c *network.Container, e *network.Endpoint) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored[tapID(c.ID, e)]
}

// TestTAPsAreStoredAsLongAsTheyAreOfUse follows a container's TAPs: each is in the store until its endpoint goes, and
// what a daemon has at its end stays for the next one.
func TestTAPsAreStoredAsLongAsTheyAreOfUse(t *testing.T) {
	m := &memoryStore{stored: map[handover.ID]bool{}}
	d := newConfiguredDaemon(t, Config{FDStore: m})
	d.sandboxes = newFakeSandboxes(t)
	makeNetworks(t, d, network.NetworkSpec{Name: "one"}, network.NetworkSpec{Name: "two"})
	started(t, d, network.ContainerSpec{Name: "c1", NetworkMode: "one"})
	if err := d.Connect(t.Context(), "two", "c1", network.EndpointSpec{}); err != nil {
		t.Fatal(err)
	}
	c, err := d.Container("c1")
	if err != nil {
		t.Fatal(err)
	}
	one, two := c.Endpoints[0], c.Endpoints[1]
	if !m.has(c, one) || !m.has(c, two) {
		t.Errorf("%v is stored", m.stored)
	}
	if err := d.Disconnect(t.Context(), "one", "c1", false); err != nil {
		t.Fatal(err)
	}
	if m.has(c, one) || !m.has(c, two) {
		t.Errorf("after the disconnection %v is stored", m.stored)
	}
	ended := started(t, d, network.ContainerSpec{Name: "c2", NetworkMode: "one"})
	before := m.barriers
	if err := d.ContainerExited(t.Context(), "c2", 0); err != nil {
		t.Fatal(err)
	}
	if m.has(ended, ended.Endpoints[0]) || m.barriers == before {
		t.Errorf("after the end %v is stored, and it was not waited for that", m.stored)
	}
	set := &handover.Set{}
	defer set.Close()
	if err := d.HandOver(set); err != nil {
		t.Fatal(err)
	}
	fd, ok := set.Take(tapID(c.ID, two))
	if !ok || set.Count(handover.TAP) != 0 {
		t.Errorf("the next daemon does not get the one TAP, or another one: %v", set)
	}
	_ = unix.Close(fd)
	d.cancel() // it ends
	if err := d.Disconnect(t.Context(), "two", "c1", true); err != nil {
		t.Fatal(err)
	}
	if !m.has(c, two) {
		t.Error("the next daemon does not find it")
	}
}
