package test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// attackAPISocketElsewhere gives a container the API's socket under another name, where nothing hides it. The kernel
// says that its processes are the user's, which they are: the daemon has to see that they are in a sandbox of its own.
func attackAPISocketElsewhere(t *testing.T) {
	d := startDaemon(t)
	root := d.rootfs()
	copied, err := os.ReadFile(usernet) // static, which the daemon's program is not when it has the race detector
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(filepath.Join(root, "bin", "usernet"), copied, 0o755),
		os.Link(d.socket, filepath.Join(root, "s")))
	if err != nil {
		t.Fatal(err)
	}
	d.ok("network", "create", "--egress", "deny", "jail")
	const ask = "usernet --host unix:///s network connect bridge jail; usernet --host unix:///s ps"
	inner := "/bin/sh -c '" + ask + "'"
	for what, command := range map[string][]string{
		"as it is":                       {"/bin/sh", "-c", ask},
		"in a user namespace of its own": {"/bin/busybox", "unshare", "-U", "-r", "/bin/sh", "-c", ask},
		"in all kinds of namespaces": {"/bin/busybox", "unshare", "-U", "-r", "-n", "-m", "-p", "-f", "/bin/sh",
			"-c", ask},
		"in the background": {"/bin/sh", "-c", "(" + inner + ") & wait"},
	} {
		r := d.try(append([]string{"run", "--rm", "--name", "jail", "--network", "jail", "--privileged", "--userns",
			"host", "--rootfs", root, "--"}, command...)...)
		if !strings.Contains(r.stderr, "requests from within container jail are refused") ||
			strings.Contains(r.stdout, "CONTAINER") {
			t.Errorf("%s: %v", what, r)
		}
		if inside := d.ok("ps", "-q", "--filter", "network=bridge"); inside != "" {
			t.Errorf("%s: the container is on the open network", what)
		}
	}
	// The same from `exec`, and beside other containers the user outside is answered.
	d.idle("box", "--privileged", "--userns", "host", "--rootfs", root)
	if r := d.try("exec", "box", "/bin/sh", "-c", ask); !strings.Contains(r.stderr, "within container box") {
		t.Errorf("exec: %v", r)
	}
	d.idle("other")
	r := d.try("run", "--rm", "--share-api", "--userns", "host", "--rootfs", root, "--", "/bin/usernet", "--host",
		"unix:///s", "ps")
	if r.code != 0 || !strings.Contains(r.stdout, "box") {
		t.Errorf("--share-api: %v", r)
	}
	if out := d.ok("ps"); !strings.Contains(out, "box") || !strings.Contains(out, "other") {
		t.Errorf("the user outside is told: %s", out)
	}
}

// attackAPIFromAttached asks from within a namespace that something else made and `attach` gave a network. The
// runtime's own tools, in the same user namespace and in the host's network namespace, are answered.
func attackAPIFromAttached(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "--egress", "deny", "jail")
	f := startForeign(d, syscall.CLONE_NEWPID)
	pid := strconv.Itoa(f.pid)
	d.ok("attach", "--pid", pid, "--name", "jail", "--network", "jail")
	ask := []string{usernet, "network", "connect", "bridge", "jail"}
	for what, before := range map[string][]string{
		"as it is": {"nsenter", "--preserve-credentials", "--user", "--net", "--pid",
			"--target", pid},
		"in a network namespace of its own": {"nsenter", "--preserve-credentials", "--user", "--net", "--pid",
			"--target", pid, "unshare", "-n"},
		"in the user's PID namespace": {"nsenter", "--preserve-credentials", "--user", "--net", "--target", pid},
		"in all kinds of namespaces": {"nsenter", "--preserve-credentials", "--user", "--net", "--pid", "--target",
			pid, "busybox", "unshare", "-U", "-r", "-n", "-m", "-p", "-f"},
	} {
		r := d.command(before[0], append(before[1:], ask...)...)
		if r.code == 0 || !strings.Contains(r.stderr, "requests from within container jail are refused") {
			t.Errorf("%s: %v", what, r)
		}
	}
	if inside := d.ok("ps", "-q", "--filter", "network=bridge"); inside != "" {
		t.Error("the container is on the open network")
	}
	if r := d.command("nsenter", "--preserve-credentials", "--user", "--target", pid, usernet, "ps"); r.code != 0 ||
		!strings.Contains(r.stdout, "jail") {
		t.Errorf("the runtime's tools: %v", r)
	}
	// Podman calls its network plugins in a network namespace that is neither.
	if r := d.command("nsenter", "--preserve-credentials", "--user", "--target", pid, "unshare", "-n", usernet,
		"ps"); r.code != 0 || !strings.Contains(r.stdout, "jail") {
		t.Errorf("the runtime's network plugins: %v", r)
	}
	d.ok("detach", "jail")
	d.ok("attach", "--pid", pid, "--name", "jail", "--network", "jail", "--share-api")
	if r := f.run(usernet, "ps"); r.code != 0 || !strings.Contains(r.stdout, "jail") {
		t.Errorf("--share-api: %v", r)
	}
}
