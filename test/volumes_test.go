package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVolumes has files of the caller's at further places, read-only where that was asked for, and usernet's own hidden
// there as elsewhere.
func TestVolumes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	shown := filepath.Join(d.dir, "shown")
	root := filepath.Join(d.dir, "root")
	for _, dir := range []string{shown, root, filepath.Join(root, "sub")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(shown, "file"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(root, "busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Links of the root file system's own lead nowhere outside.
	if err := os.Symlink("/../../../../"+shown, filepath.Join(root, "way-out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc", filepath.Join(root, "processes")); err != nil {
		t.Fatal(err)
	}
	run := func(flags []string, script string) result {
		root := []string{"run", "--rm", "--security-opt", "systempaths=unconfined", "--rootfs", root}
		return d.try(slices.Concat(root, flags, []string{"--", "/busybox", "sh", "-c", script})...)
	}
	for name, test := range map[string]struct {
		flags  []string
		script string
		want   string // of the output; with ! it has to fail with that
	}{
		"a directory": {
			[]string{"-v", shown + ":/a/b"},
			"cat /a/b/file; echo new >/a/b/new; cat /a/b/new",
			"text\nnew\n",
		},
		"a file": {[]string{"-v", shown + "/file:/etc/thing"}, "cat /etc/thing", "text\n"},
		"read-only": {
			[]string{"-v", shown + ":/a:ro"},
			"cat /a/file; echo x 2>/dev/null >/a/x || echo no",
			"text\nno\n",
		},
		"below a link":    {[]string{"-v", shown + ":/way-out/in"}, "true", "!mounting at /way-out/in"},
		"a link to /proc": {[]string{"-v", shown + ":/processes"}, "true", "!leads into /proc"},
		"a tmpfs": {
			[]string{"--tmpfs", "/t:size=64k,mode=0700"},
			"echo a >/t/f; cat /t/f; grep ' /t ' /proc/mounts | cut -d, -f2-4",
			"a\nnosuid,nodev,noexec\n",
		},
		"a read-only root": {
			[]string{"--read-only", "--tmpfs", "/t"},
			"echo a >/t/f; cat /t/f; echo x 2>/dev/null >/sub/x || echo no",
			"a\nno\n",
		},
		"usernet's own": {
			[]string{"-v", d.dir + ":/all"},
			"ls /all/state /all/state.jobs; cat /all/shown/file",
			"/all/state:\n\n/all/state.jobs:\ntext\n",
		},
		"nothing there":     {[]string{"-v", d.dir + "/missing:/a"}, "true", "!no such file"},
		"no path":           {[]string{"-v", "name:/a"}, "true", "!no named volumes"},
		"the root":          {[]string{"-v", shown + ":/"}, "true", "!destination can't be '/'"},
		"in /proc":          {[]string{"-v", shown + ":/proc/x"}, "true", "!inside /proc"},
		"twice":             {[]string{"-v", shown + ":/a", "--tmpfs", "/a"}, "true", "!duplicate mount point: /a"},
		"an unknown option": {[]string{"--tmpfs", "/a:colour=red"}, "true", "!option"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(test.flags, test.script)
			if words, fails := strings.CutPrefix(test.want, "!"); fails {
				if r.code == 0 || !strings.Contains(r.stderr, words) {
					t.Errorf("want %q: %v", words, r)
				}
			} else if r.stdout != test.want {
				t.Errorf("want %q: %v", test.want, r)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(shown, "in")); err == nil {
		t.Error("a link has led out of the root file system")
	}
	mounted := filepath.Join(d.dir, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	r := d.try("run", "--rm", "--read-only", "-v", shown+":"+mounted, "--", "sh", "-c",
		"cat "+mounted+"/file; echo y >"+mounted+"/y; (echo x >"+shown+"/z) 2>/dev/null || echo no")
	if r.stdout != "text\nno\n" || r.code != 0 {
		t.Errorf("the caller's files read-only: %v", r)
	}
	d.idle("cc", "-v", shown+":"+mounted+":ro", "--init")
	out := d.ok("inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}} "+
		"{{.HostConfig.Init}}", "cc")
	if want := "bind " + shown + " " + mounted + " false true"; out != want {
		t.Errorf("inspect: %s, want %s", out, want)
	}
	d.ok("restart", "-t", "0", "cc")
	d.says("text", "cc", "cat", mounted+"/file")
}
