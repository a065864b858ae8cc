package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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

// TestWhatNobodyTakesIsClosed starts a daemon with descriptors of containers and connections that it does not have, with
// sockets that are none, and with files of kinds that it does not know; also one that fails to start, at each point at
// which it can fail.
func TestWhatNobodyTakesIsClosed(t *testing.T) {
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "usernet.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cfg   Config
		fails bool
	}{
		"a daemon":                    {cfg: Config{StateDir: t.TempDir()}},
		"one without a directory":     {cfg: Config{}, fails: true},
		"one whose directory is none": {cfg: Config{StateDir: os.DevNull}, fails: true},
		"one with a damaged store":    {cfg: Config{StateDir: damaged}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			tap := api.SandboxFile{Kind: api.FileTAP, Container: "c", Endpoint: "e", Interface: "eth0"}
			files := []api.SandboxFile{
				tap, tap, {Kind: api.FileDNSPacket, Container: "c"}, {Kind: api.FileDNSListener, Container: "c"}, {Kind: "new", Container: "c"},
			}
			all := map[string]int{}
			for i := range files {
				files[i].FD = nowhere(t)
				all[fmt.Sprintf("%d of a sandbox, %s", i, files[i].Kind)] = files[i].FD
			}
			cfg := test.cfg
			cfg.Logger, cfg.Sandboxes = slog.New(slog.DiscardHandler), files
			cfg.Inherited, cfg.Adopted = []int{nowhere(t)}, []int{nowhere(t)}
			cfg.Flows = []api.FlowFiles{{Network: "n", State: []byte("{}"), Count: 2, FDs: []int{nowhere(t), nowhere(t)}}}
			all["inherited"], all["adopted"] = cfg.Inherited[0], cfg.Adopted[0]
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
