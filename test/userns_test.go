package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// chowned is a root file system that belongs to the user's first subordinate id.
func (d *daemon) chowned() string {
	d.t.Helper()
	root := d.rootfs()
	asRoot(d.t, "chown -hR 1:1 "+root) // of the world, which sees that id as 1
	d.t.Cleanup(func() { asRoot(d.t, "rm -rf "+root) })
	return root
}

func TestRootInASandboxIsNobodyOutside(t *testing.T) {
	d := startDaemon(t)
	root := d.chowned()
	secret := filepath.Join(d.dir, "secret")
	if err := os.WriteFile(secret, []byte("the user's"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.idle("box", "--rootfs", root)
	status := readFile(t, fmt.Sprintf("/proc/%d/status", d.pid("box")))
	if !strings.Contains(status, fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", firstSubordinate)) ||
		!strings.Contains(status, fmt.Sprintf("Gid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", firstSubordinate)) {
		t.Errorf("the ids of the sandbox's first process: %s", status)
	}
	d.says("uid=0 gid=0", "box", "id")
	d.ok("exec", "box", "busybox", "touch", "/made")
	info, err := os.Stat(filepath.Join(root, "made"))
	if err != nil || fmt.Sprint(info.Sys()) == "" {
		t.Fatal(err)
	}
	if out := asRoot(t, "stat -c %u "+filepath.Join(root, "made")); out != "1" {
		t.Errorf("a file that root made belongs to the world's %s", out)
	}
	// All that makes a container still works.
	d.ok("network", "create", "second")
	d.ok("network", "connect", "second", "box")
	d.says("eth1", "box", "busybox", "ip", "link")
	d.serve("web", []string{"--rootfs", root}, "/bin/helper", "tcpserve", ":80", "addr")
	d.says("ok 1", "box", "/bin/helper", "tcpdial", d.addressAt("web", "eth0")+":80")
	r := d.try("run", "--rm", "--network", "container:box", "--rootfs", root, "--", "busybox", "sh", "-c", "id; busybox ip link show eth1; echo x >/joined && busybox ls -n /joined")
	if r.code != 0 || !strings.Contains(r.stdout, "uid=0") || !strings.Contains(r.stdout, "eth1") {
		t.Errorf("%v", r)
	}
	d.stop(os.Kill)
	d.start()
	d.says("eth1", "box", "busybox", "ip", "link")
	d.says("ok 1", "box", "/bin/helper", "tcpdial", d.addressAt("web", "eth0")+":80")
	d.ok("stop", "-t", "0", "web")
	d.ok("kill", "box")
}

func TestUsersOfASandboxHaveIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	own := d.rootfs()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"the user's directory", []string{"--rootfs", own}, "uid=0 gid=0 root:0 writes"},
		{"a user", []string{"--rootfs", own, "--user", "33:44"}, "uid=33 gid=44 root:0 does not write"},
		{"a subordinate id's directory", []string{"--rootfs", d.chowned()}, "uid=0 gid=0 root:0 writes"},
		{"host", []string{"--userns", "host", "--rootfs", own}, "uid=0 gid=0 root:0 writes"},
		{"host, a user", []string{"--userns", "host", "--user", "33:44", "--rootfs", own},
			"uid=33 gid=44 root:33 writes"},
		{"range", []string{"--userns", "range", "--rootfs", own}, "uid=0 gid=0 root:65534 does not write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			args := append(append([]string{"run", "--rm"}, c.args...), "--", "/bin/busybox", "sh", "-c",
				"echo $(id | busybox cut -d' ' -f1,2) root:$(busybox stat -c %u /) $({ echo >/w; } 2>/dev/null && echo writes || echo does not write)")
			if got := d.ok(args...); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	d.idle("box", "--rootfs", own)
	if got := d.ok("exec", "--user", "7:8", "box", "/bin/busybox", "id"); !strings.HasPrefix(got, "uid=7 gid=8") {
		t.Errorf("exec --user: %q", got)
	}
	d.fails("there are auto, host and range", "run", "--userns", "other", "--", "true")
	d.fails("has the ids 0 to", "run", "--rm", "--user", "70000", "--rootfs", own, "--", "/bin/busybox", "id")
	if out := d.ok("check"); !strings.Contains(out, "subordinate ids: 65535") {
		t.Errorf("check: %s", out)
	}
}

// Within a container of somebody else's, /etc/subuid may promise ids that cannot be mapped there.
func TestIDsThatCannotBeMappedAreDoneWithout(t *testing.T) {
	d := startDaemon(t)
	bad := t.TempDir()
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(bad, tool), []byte("#!/bin/sh\necho not here >&2; exit 1\n"),
			0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(userns string) result {
		return d.command("env", "PATH="+bad+":"+os.Getenv("PATH"), usernet, "run", "--rm", "--userns", userns,
			"--rootfs", d.rootfs(), "--",
			"/bin/busybox", "sh", "-c", "id -u; busybox wc -l </proc/self/uid_map")
	}
	if r := run("auto"); r.code != 0 || r.stdout != "0\n1\n" {
		t.Errorf("auto: %v", r)
	}
	if r := run("range"); r.code != 125 || !strings.Contains(r.stderr, "not here") {
		t.Errorf("range: %v", r)
	}
}
