package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// daemon is one that gives each virtual machine the same socket.
type daemon struct {
	socket  string
	fail    error
	removed int
	during  func() // what happens while it attaches
}

func (d *daemon) Attach(_ context.Context, q api.AttachRequest, _ *os.File) (r api.AttachReply, err error) {
	r.ID, r.VM = "id", q.Spec.VM
	r.VM.Socket = d.socket
	if d.during != nil {
		d.during()
	}
	return r, d.fail
}

func (d *daemon) ContainerRemove(context.Context, string, bool) error {
	d.removed++
	return nil
}

func TestTheLinkIsMadeAndRemoved(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{socket: filepath.Join(dir, "vm", "0123.sock")}
	at, err := ParseSocket("unixgram://" + filepath.Join(dir, "vm1"))
	if err != nil || at.Kind != "datagram" {
		t.Fatalf("%+v, %v", at, err)
	}
	q := api.AttachRequest{Spec: network.ContainerSpec{VM: at}}
	for _, socket := range []string{d.socket, filepath.Join(dir, "vm", "4567.sock")} { // the second replaces the first
		d.socket = socket
		made, err := Attach(t.Context(), d, q)
		if err != nil {
			t.Fatal(err)
		}
		if to, _ := os.Readlink(at.Path); to != made.VM.Socket || to != socket {
			t.Errorf("the link leads to %q, want %q", to, socket)
		}
	}
	if err := Unlink(network.VMSocket{Path: at.Path, Socket: "/another"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(at.Path); err != nil {
		t.Errorf("another's link was removed: %v", err)
	}
	if err := Unlink(network.VMSocket{Path: at.Path, Socket: d.socket}); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatIsThereIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vm1")
	q := api.AttachRequest{Spec: network.ContainerSpec{VM: network.VMSocket{Kind: "stream", Path: path}}}
	for name, make := range map[string]func() error{
		"a file":         func() error { return os.WriteFile(path, nil, 0o600) },
		"another's link": func() error { return os.Symlink("/etc/passwd", path) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := Attach(t.Context(), &daemon{}, q); err == nil {
			t.Errorf("%s was replaced", name)
		}
		_ = os.Remove(path)
	}
	gone := t.TempDir()
	q.Spec.VM.Path = filepath.Join(gone, "vm1")
	d := &daemon{socket: "/x/vm/1.sock", during: func() { _ = os.Remove(gone) }}
	if _, err := Attach(t.Context(), d, q); err == nil || d.removed != 1 {
		t.Errorf("without a directory for the link: %v, removed %d times", err, d.removed)
	}
	q.Spec.VM.Path, d.fail, d.during = path, errors.New("no"), nil
	if _, err := Attach(t.Context(), d, q); !errors.Is(err, d.fail) || d.removed != 1 {
		t.Errorf("%v, removed %d times", err, d.removed)
	}
	q.Spec.VM.Connect, d.fail = true, nil
	if _, err := Attach(t.Context(), d, q); err != nil {
		t.Errorf("where the virtual machine listens there is no link to make: %v", err)
	}
}

func TestParseSocketRefuses(t *testing.T) {
	for _, s := range []string{"", "unix://", "tcp://1.2.3.4:5", "://x"} {
		if at, err := ParseSocket(s); err == nil {
			t.Errorf("%q is %+v", s, at)
		}
	}
}

func TestAPathThatNoSocketCanHaveIsRefused(t *testing.T) {
	longest := "/" + strings.Repeat("x", 106) // sun_path of struct sockaddr_un has 108 bytes, one of which ends it
	if _, err := ParseSocket("unixgram://" + longest); err != nil {
		t.Errorf("107 bytes: %v", err)
	}
	for _, s := range []string{longest + "y", "unixgram://" + longest + "y"} {
		if _, err := ParseSocket(s); err == nil || !strings.Contains(err.Error(), "108 bytes") ||
			!strings.Contains(err.Error(), "at most 107") {
			t.Errorf("108 bytes: %v", err)
		}
	}
}

func TestADirectoryThatIsMissingIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	q := api.AttachRequest{Spec: network.ContainerSpec{VM: network.VMSocket{Path: filepath.Join(dir, "vm1")}}}
	_, err := Attach(t.Context(), &daemon{socket: "/x/vm/y.sock"}, q)
	if want := "there is no directory " + dir; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
