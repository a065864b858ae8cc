package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// TestWhatWasToEndWhileNoDaemonAnswered ends when somebody asks for something, with the next daemon, and before the key
// is used again.
func TestWhatWasToEndWhileNoDaemonAnswered(t *testing.T) {
	w := newVMWorld(t, nil)
	w.stop()
	w.cfg.Socket = filepath.Join(t.TempDir(), "usernet.sock")
	w.start()
	c := api.NewClient(w.cfg.Socket)
	attach := func() *network.Container {
		t.Helper()
		made, err := w.d.Attach(t.Context(), api.AttachRequest{Key: "k", Spec: network.ContainerSpec{
			NetworkMode: "lan", VM: network.VMSocket{Kind: "stream", Path: w.path + "2"},
			Networks: []network.NamedEndpointSpec{{Network: "lan"}},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	for name, then := range map[string]func(){
		"asked":           func() { w.d.DetachLeft() },
		"the next daemon": func() { w.stop(); w.start() },
		"attached again":  func() { attach() },
	} {
		made := attach()
		if err := c.DetachLater("k"); err != nil {
			t.Fatal(err)
		}
		then()
		if _, err := w.d.Container(made.ID); err == nil {
			t.Errorf("%s: what was to end is there", name)
		}
		if left, err := os.ReadDir(api.LaterDir(w.cfg.Socket)); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

// TestWhatIsNoKeyEndsNothing has a pipe and an empty file where keys are left: no request waits for them, or looks at
// them again.
func TestWhatIsNoKeyEndsNothing(t *testing.T) {
	w := newVMWorld(t, nil) // a machine that was attached without a key
	w.stop()
	w.cfg.Socket = filepath.Join(t.TempDir(), "usernet.sock")
	var log strings.Builder
	w.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	w.start()
	dir := api.LaterDir(w.cfg.Socket)
	if err := errors.Join(os.Mkdir(dir, 0o700), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600),
		os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.d.DetachLeft()
	}
	if _, err := w.d.Container(w.c.ID); err != nil {
		t.Errorf("a machine without a key was ended: %v", err)
	}
	w.stop() // nothing logs any more
	defer w.start()
	if n := strings.Count(log.String(), "is still there"); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, &log)
	}
}
