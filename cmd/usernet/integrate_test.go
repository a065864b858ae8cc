package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestIntegrationsAreWrittenAndUndone has each one written twice, undone twice, and kept from files of others.
func TestIntegrationsAreWrittenAndUndone(t *testing.T) {
	if all := slices.Sorted(maps.Keys(integrationPaths{}.integrations())); !slices.Equal(all, integrationNames) {
		t.Errorf("there are %q, and completions are %q", all, integrationNames)
	}
	for _, name := range integrationNames {
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
			for _, above := range i.tidy {
				if left, err := filepath.Glob(above + "/*"); err != nil || len(left) > 0 {
					t.Errorf("left behind: %q, %v", left, err)
				}
			}
			for path := range i.files {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s is still there", path)
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
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
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			for path := range i.links {
				keepsForeignLink(t, i, path)
			}
		})
	}
	if _, err := integrationFor("frobnicator"); err == nil || !strings.Contains(err.Error(),
		"cni, docker, nesting, netavark, oci, podman, rootlesskit") {
		t.Errorf("an unknown name: %v", err)
	}
}

// keepsForeignLink has something that usernet did not make at the path of a link, and a link of another version's.
func keepsForeignLink(t *testing.T, i integration, path string) {
	var said strings.Builder
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"/usr/bin/somebody-elses", "beside", i.links[path] + "/below"} {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		if err := i.write(&said); err == nil || !strings.Contains(err.Error(), to) {
			t.Errorf("written over a link to %s: %v", to, err)
		}
		if err := i.undo(&said); err == nil || !strings.Contains(err.Error(), to) {
			t.Errorf("undone with a link to %s: %v", to, err)
		}
		if have, err := os.Readlink(path); err != nil || have != to {
			t.Errorf("the link to %s of somebody else's now leads to %q, %v", to, have, err)
		}
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/opt/older/"+filepath.Base(i.links[path]), path); err != nil {
		t.Fatal(err)
	}
	if err := i.write(&said); err != nil {
		t.Error(err)
	}
	if to, _ := os.Readlink(path); to != i.links[path] {
		t.Errorf("the link of another version leads to %q", to)
	}
	if err := i.undo(&said); err != nil {
		t.Error(err)
	}
}

// TestIntegrationsShareLinks undoes one of two that have a link in common, and then the other.
func TestIntegrateSaysWhatThereIs(t *testing.T) {
	for _, args := range [][]string{nil, {"podman", "docker"}} {
		c := integrateCommand()
		if err := c.Args(c, args); err == nil || !strings.Contains(err.Error(), "netavark") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestIntegrationsShareLinks(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_DATA_HOME", "")
	var said strings.Builder
	get := func(name string) integration {
		i, err := integrationFor(name)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	for _, name := range []string{"podman", "docker"} {
		if err := get(name).write(&said); err != nil {
			t.Fatal(err)
		}
	}
	slirp := filepath.Join(os.Getenv("HOME"), ".local/share/usernet/bin/slirp4netns")
	for _, step := range []struct {
		name  string
		stays bool
	}{{"podman", true}, {"docker", false}} {
		if err := get(step.name).undo(&said); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(slirp); (err == nil) != step.stays {
			t.Errorf("after --undo of %s: the link's state is %v, want it to stay: %t", step.name, err, step.stays)
		}
	}
}
