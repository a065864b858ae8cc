package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUpdatesOfFilesArriveOrSayWhy(t *testing.T) {
	// Longer than the path of a socket may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := SendFiles(t.Context(), dir, Files{Hosts: "x"}); err == nil {
		t.Error("sent to nobody")
	}
	u, err := ListenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan Files, 1)
	u.Serve(func(f Files) error {
		if f.Hosts == "refuse" {
			return errors.New("refused")
		}
		got <- f
		return nil
	})
	want := Files{Hosts: strings.Repeat("192.0.2.1 name\n", 60000), ResolvConf: "nameserver 127.0.0.11\n"}
	if err := SendFiles(t.Context(), dir, want); err != nil || <-got != want {
		t.Errorf("%v", err)
	}
	if err := SendFiles(t.Context(), dir, Files{Hosts: "refuse"}); err == nil ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("what is wrong is not passed on: %v", err)
	}
	if err := SendFiles(t.Context(), dir, Files{Hosts: strings.Repeat("x", maxUpdate)}); err == nil {
		t.Error("an update without bound was sent")
	}
	u.Close()
	if err := SendFiles(t.Context(), dir, want); err == nil {
		t.Error("sent to one that has ended")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left behind", left)
	}
}

func TestUpdatesEndWhereNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	u, err := ListenFiles(dir) // and Serve is not called: as a process that is stopped
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	began := time.Now()
	if err := SendFiles(t.Context(), dir, Files{Hosts: "x"}); err == nil {
		t.Error("nobody answered, and yet it is done")
	}
	if took := time.Since(began); took < updateTimeout {
		t.Errorf("given up after %v", took)
	}
}
