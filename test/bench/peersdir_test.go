package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeersOfADirectory has the peers' programs found in a directory, and no other program of it.
func TestPeersOfADirectory(t *testing.T) {
	dir := t.TempDir()
	program := func(path, says string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+says+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("usr/bin/slirp4netns", "newer")
	program("usr/bin/ip", "of another distribution")
	t.Setenv("PATH", os.Getenv("PATH"))
	if err := preferPeers(dir, filepath.Join(t.TempDir(), "links")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("slirp4netns", "--version", "a b").CombinedOutput()
	if err != nil || string(out) != "newer --version a b\n" {
		t.Errorf("slirp4netns: %q, %v", out, err)
	}
	if ip, err := exec.LookPath("ip"); err == nil && strings.HasPrefix(ip, dir) {
		t.Error("ip is taken from the directory of peers")
	}
}

func TestNoPeersInADirectory(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH"))
	err := preferPeers(t.TempDir(), filepath.Join(t.TempDir(), "links"))
	if err == nil || !strings.Contains(err.Error(), "slirp4netns") {
		t.Errorf("an empty directory of peers: %v", err)
	}
}

// TestPeersOfARoot has a distribution's root with a loader: its programs are started by that.
func TestPeersOfARoot(t *testing.T) {
	dir, links := t.TempDir(), filepath.Join(t.TempDir(), "links")
	for path, says := range map[string]string{
		"usr/bin/pasta":                       "pasta",
		"lib64/ld-linux-x86-64.so.2":          "loader",
		"usr/lib/x86_64-linux-gnu/libc.so.6":  "libc",
		"usr/bin/pasta.txt":                   "no program",
		"usr/lib/x86_64-linux-gnu/libslirp.0": "libslirp",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+says+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", os.Getenv("PATH"))
	if err := preferPeers(dir, links); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("pasta", "--config-net").CombinedOutput()
	want := "loader --library-path " + filepath.Join(dir, "usr/lib/x86_64-linux-gnu") + " --argv0 pasta " +
		filepath.Join(dir, "usr/bin/pasta") + " --config-net\n"
	if err != nil || string(out) != want {
		t.Errorf("pasta: %q, %v; want %q", out, err, want)
	}
}
