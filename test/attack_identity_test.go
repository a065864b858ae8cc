package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// attackExecutable has root in a sandbox reach for the executable of the sandbox's init, as CVE-2019-5736 did.
func attackExecutable(t *testing.T) {
	d := startDaemon(t)
	root := d.rootfs()
	before, err := os.Stat(usernet)
	if err != nil {
		t.Fatal(err)
	}
	d.idle("box", "--rootfs", root)
	d.idle("owner")
	d.idle("joined", "--network", "container:owner", "--rootfs", root)
	for _, name := range []string{"box", "joined"} {
		// exec's own process has been replaced by the command; that of the init stays.
		r := d.exec(name, "sh", "-c", `
for mode in 0 111 777 4755; do chmod $mode /proc/1/exe; done
echo X >/proc/1/exe
exec 9<>/proc/1/exe`)
		info, err := os.Stat(usernet)
		if err != nil || info.Mode() != before.Mode() || info.Size() != before.Size() ||
			!info.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s changed the host's executable: %v, %v; before: %v\n%v", name, info, err, before, r)
		}
		if !strings.Contains(r.stderr, "/proc/1/exe: ") {
			t.Errorf("%s could do all that: %v", name, r)
		}
	}
	// What the one has done is nothing to the other, or to those who come later.
	d.idle("later", "--rootfs", root)
	d.says("here", "later", "busybox", "echo", "here")
	d.ok("network", "create", "second")
	d.ok("network", "connect", "second", "box")
	d.says("eth1", "box", "busybox", "ip", "link")
	var first os.FileInfo // all of them have one file, which is in memory once
	for _, name := range []string{"box", "joined", "owner", "later"} {
		pid := d.pid(name)
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || !strings.HasPrefix(exe, "/memfd:") {
			t.Errorf("the executable of %s's init is %q, %v", name, exe, err)
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = info
		}
		if !raceBuild && !os.SameFile(first, info) { // the daemon's program with the race detector is another one
			t.Errorf("%s has an executable of its own: %v", name, info)
		}
	}
}

// attackEntering has root of a sandbox's user namespace, who sees the host's processes, try to trace whatever enters
// the sandbox, for as long as it does: agents, factories of sockets, commands of exec. On a busy machine one of them
// may not be seen in a round, so that there are more.
func attackEntering(t *testing.T) {
	d := startDaemon(t)
	d.idle("box")
	port := freePort()
	listen(t, fmt.Sprintf("%s:%d", host4, port), func(c *net.TCPConn) { c.Close() })
	seen := map[string]int{}
	eventually(t, func() error {
		for role, n := range traceEntering(d, port) {
			seen[role] += n
		}
		for _, role := range []string{"__agent", "__factory", "__exec"} {
			if seen[role] == 0 {
				return fmt.Errorf("no process was seen as %s: nothing was tried", role)
			}
		}
		return nil
	})
	t.Logf("seen: %v", seen)
}

// traceEntering has programs enter the container box while its root tries to trace them, and returns how many it saw,
// by role.
func traceEntering(d *daemon, port int) map[string]int {
	d.t.Helper()
	spy := exec.Command("nsenter", "--user", "--preserve-credentials", "--target", strconv.Itoa(d.pid("box")), helper,
		"trace")
	var out bytes.Buffer
	spy.Stdout, spy.Stderr = &out, &out
	stdin, err := spy.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := spy.Start(); err != nil {
		d.t.Fatal(err)
	}
	for i := range 20 {
		name := fmt.Sprint("n", i)
		d.ok("network", "create", name)
		d.ok("network", "connect", name, "box")
		d.ok("network", "disconnect", name, "box")
		d.ok("network", "rm", name)
		d.says("", "box", helper, "tcpdial", fmt.Sprintf("%s:%d", host4, port))
	}
	stdin.Close()
	if err := spy.Wait(); err != nil {
		d.t.Fatalf("%v\n%s", err, &out)
	}
	var r struct {
		Seen map[string]int
		Got  []string
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		d.t.Fatalf("%v\n%s", err, &out)
	}
	if len(r.Got) > 0 {
		d.t.Errorf("the sandbox's root could have: %s", strings.Join(r.Got, "; "))
	}
	return r.Seen
}

// attackDescriptors starts commands from a process that has a directory of the host open, as shells, cron and CI
// runners do (CVE-2024-21626).
func attackDescriptors(t *testing.T) {
	d := startDaemon(t)
	root, outside := d.rootfs(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.idle("box", "--rootfs", root)
	d.idle("plain")
	for _, command := range []string{
		"exec box", "exec -t box", "exec plain",
		"run --rm --rootfs " + root + " --", "run --rm --network host --rootfs " + root + " --",
		"run --rm --network container:plain --rootfs " + root + " --",
	} {
		script := fmt.Sprintf(`exec 7<"$0" 9<"$0"; %s %s sh -c 'ls /proc/self/fd; cat /proc/self/fd/7/secret /proc/1/fd/7/secret /proc/1/cwd/secret'`, usernet, command)
		r := d.command("sh", "-c", script, outside)
		if strings.Contains(r.stdout+r.stderr, "the host's") {
			t.Errorf("%s: the host's directory can be read: %v", command, r)
		}
		// 3 is ls's own
		if got := strings.Join(strings.Fields(strings.Split(r.stdout, "cat:")[0]), " "); got != "0 1 2 3" {
			t.Errorf("%s: descriptors %s, want 0 to 2 and that of the list", command, got)
		}
	}
	for _, command := range []string{"exec -w /proc/self/fd/%d box",
		"run --rm -w /proc/self/fd/%d --rootfs " + root + " --"} {
		for fd := 3; fd < 12; fd++ {
			line := fmt.Sprintf(command, fd)
			r := d.command("sh", "-c", `exec 7<"$0" 9<"$0"; `+usernet+" "+line+" cat secret ../secret", outside)
			if strings.Contains(r.stdout+r.stderr, "the host's") || r.code == 0 {
				t.Errorf("%s: %v", line, r)
			}
		}
	}
}
