package daemon

import (
	"os"
	"path/filepath"
	"testing"

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
