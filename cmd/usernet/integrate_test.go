package main

import (
	"os"
	"strings"
	"testing"
)

// TestIntegrationsAreWrittenAndUndone has each one written twice, undone twice, and kept from files of others.
func TestIntegrationsAreWrittenAndUndone(t *testing.T) {
	for _, name := range []string{"podman", "docker", "rootlesskit", "cni", "netavark", "oci", "nesting",
		"wireshark"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("HOME", dir)
			t.Setenv("XDG_CONFIG_HOME", "")
			t.Setenv("XDG_DATA_HOME", "")
			i, err := integrationFor(name)
			if err != nil {
				t.Fatal(err)
			}
			var shown, said strings.Builder
			i.show(&shown)
			for range 2 {
				if err := i.write(&said); err != nil {
					t.Fatal(err)
				}
			}
			for link := range i.links {
				if target, err := os.Readlink(link); err != nil || target == "" || !strings.HasPrefix(link, dir+
					"/.local/share/usernet/") {
					t.Errorf("the link %s: %q, %v", link, target, err)
				}
			}
			for path, text := range i.files {
				b, err := os.ReadFile(path)
				if err != nil || string(b) != text || !strings.HasPrefix(path, dir+"/.config/") &&
					!strings.HasPrefix(path, dir+"/.local/lib/docker/plugins/") &&
					!strings.HasPrefix(path, dir+"/.local/lib/wireshark/extcap/") {
					t.Errorf("%s: %q, %v", path, b, err)
				}
				if !strings.Contains(shown.String(), text) {
					t.Errorf("%s is not shown before it is written", path)
				}
			}
			for range 2 {
				if err := i.undo(&said); err != nil {
					t.Fatal(err)
				}
			}
			for path := range i.files {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s is still there", path)
				}
				if err := os.WriteFile(path, []byte("somebody else's"), 0o644); err != nil {
					t.Fatal(err)
				}
				if i.write(&said) == nil || i.undo(&said) == nil {
					t.Error("a file of somebody else's was overwritten or removed")
				}
				if b, _ := os.ReadFile(path); string(b) != "somebody else's" {
					t.Errorf("%s now says %q", path, b)
				}
			}
		})
	}
	if _, err := integrationFor("frobnicator"); err == nil || !strings.Contains(err.Error(),
		"cni, docker, nesting, netavark, oci, podman, rootlesskit") {
		t.Errorf("an unknown name: %v", err)
	}
}
