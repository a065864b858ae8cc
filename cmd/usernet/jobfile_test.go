package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/joblog"
	"github.com/usernet/usernet/network"
)

// TestJobsAreWrittenUnderIDsOnly has the daemon answer with an id that leads out of the directory of jobs, as one that
// was taken over may.
func TestJobsAreWrittenUnderIDsOnly(t *testing.T) {
	dir := t.TempDir()
	bad := &job{StateDir: filepath.Join(dir, "state"), Container: &network.Container{ID: "../bashrc"}}
	if err := bad.save(); err == nil {
		t.Error("a job was written under the id ../bashrc")
	}
	if _, err := os.Stat(filepath.Join(dir, "bashrc")); err == nil {
		t.Error("a file was made outside of the directory of jobs")
	}
	good := &job{StateDir: bad.StateDir, Container: &network.Container{ID: strings.Repeat("0a", 32)}}
	if err := good.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := loadJob(good.StateDir, good.Container.ID); err != nil {
		t.Error(err)
	}
}

// TestLinksInTheStateAreNotFollowed has links where files are written in the state, which a confined daemon can make:
// what they lead to is closed to it, and has to stay as it is.
func TestLinksInTheStateAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "bashrc")
	if err := os.WriteFile(target, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(path string){
		"log":  func(path string) { (&logFile{path: path}).write(joblog.Line{Log: "$(id)\n"}) },
		"exit": func(path string) { _ = writeInState(path, []byte("0")) },
		daemonLog: func(string) {
			if f, _, err := openDaemonLog(dir); err == nil {
				_, _ = f.WriteString("$(id)\n")
				_ = f.Close()
			}
		},
		socketFile: func(string) { _ = noteSocket(dir, "/run/s") },
		"job of a container": func(string) {
			j := &job{StateDir: filepath.Join(dir, "other"), Container: &network.Container{ID: strings.Repeat("1", 64)}}
			jobs := filepath.Join(dir, "other.jobs")
			if err := os.Mkdir(jobs, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(jobs, j.Container.ID)); err != nil {
				t.Fatal(err)
			}
			_ = j.save()
		},
	} {
		path := filepath.Join(dir, name)
		link := path
		if name == socketFile {
			link += ".new"
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		write(path)
		if text, err := os.ReadFile(target); err != nil || string(text) != "as it was" {
			t.Errorf("%s: a link was followed: %q %v", name, text, err)
		}
		if err := os.WriteFile(target, []byte("as it was"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneProcessRunsAContainer has a second one try, which gets its turn once the first one leaves.
func TestOneProcessRunsAContainer(t *testing.T) {
	dir := t.TempDir()
	j := &job{StateDir: filepath.Join(dir, "state"), Container: &network.Container{ID: strings.Repeat("2", 64)}}
	unlock, err := j.lock(0)
	if err != nil {
		t.Fatal("what was not written down is locked:", err)
	}
	unlock()
	if err := j.save(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = j.lock(0); err != nil {
		t.Fatal(err)
	}
	if _, err := j.lock(0); err == nil {
		t.Error("two processes run it")
	}
	next := make(chan error, 1)
	go func() {
		unlock, err := j.lock(30 * time.Second)
		if err == nil {
			unlock()
		}
		next <- err
	}()
	unlock()
	if err := <-next; err != nil {
		t.Error(err)
	}
}
