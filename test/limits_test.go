package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dockersCapabilities is the set that Docker gives a container, as /proc/PID/status shows it.
const dockersCapabilities = "00000000a80425fb"

func TestCommandsHaveDockersLimits(t *testing.T) {
	d := startDaemon(t)
	profile := filepath.Join(d.dir, "profile.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["uname"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const status = `grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs):' /proc/self/status`
	root := d.rootfs()
	for _, c := range []struct {
		name    string
		flags   []string
		command string
		wants   []string
	}{
		{"status", nil, status, []string{"CapBnd:\t" + dockersCapabilities, "CapEff:\t" + dockersCapabilities,
			"Seccomp:\t2", "NoNewPrivs:\t0"}},
		{"no new namespaces", nil, "unshare -U true; unshare -m true",
			[]string{"Operation not permitted", "Operation not permitted"}},
		{"no mounts", nil, "mount -t tmpfs none /mnt", []string{"permission denied"}},
		{"pings", nil, "ping -c 1 -W 9 127.0.0.1", []string{"1 received"}},
		{"packet sockets", nil, helper + " l2send lo 0x88b5 ff:ff:ff:ff:ff:ff hello && echo sent", []string{"sent"}},
		{"no interfaces", nil, "ip link set lo mtu 1400", []string{"Operation not permitted"}},
		{"--cap-add", []string{"--cap-add", "NET_ADMIN"}, "ip link set lo mtu 1400; ip link show lo",
			[]string{"mtu 1400"}},
		{"--cap-drop", []string{"--cap-drop", "ALL"},
			status + "; " + helper + " l2send lo 0x88b5 ff:ff:ff:ff:ff:ff hello",
			[]string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "operation not permitted"}},
		{"seccomp=unconfined", []string{"--security-opt", "seccomp=unconfined"}, status + "; unshare -U echo inside",
			[]string{"CapBnd:\t" + dockersCapabilities, "Seccomp:\t0", "inside"}},
		{"seccomp=FILE", []string{"--security-opt", "seccomp=" + profile}, "unshare -U echo inside; uname",
			[]string{"inside", "Function not implemented"}},
		{"no-new-privileges", []string{"--security-opt", "no-new-privileges"}, status, []string{"NoNewPrivs:\t1"}},
		{"--privileged", []string{"--privileged"}, status + "; unshare -m mount -t tmpfs none /mnt && echo mounted",
			[]string{"Seccomp:\t0", "mounted"}},
		{"--user", []string{"--user", "7:8"}, "id -u; " + status + "; unshare -U true",
			[]string{"7\n", "CapEff:\t0000000000000000", "Seccomp:\t2", "Operation not permitted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			name := "box-" + strings.Trim(strings.Map(func(r rune) rune {
				if r >= 'a' && r <= 'z' {
					return r
				}
				return -1
			}, c.name), "-")
			d.ok(append(append([]string{"run", "-d", "--name", name}, c.flags...), "--", "sleep", "1000")...)
			run := d.try(append(append([]string{"run", "--rm"}, c.flags...), "--", "sh", "-c", c.command)...)
			user := []string{}
			if c.name == "--user" {
				user = c.flags
			}
			exec := d.try(append(append(append([]string{"exec"}, user...), name), "sh", "-c", c.command)...)
			for _, r := range []result{run, exec} {
				for _, want := range c.wants {
					if !strings.Contains(r.stdout+r.stderr, want) {
						t.Errorf("no %q: %v", want, r)
					}
				}
			}
		})
	}
	t.Run("with ids of its own", func(t *testing.T) {
		d := d.in(t)
		status := strings.ReplaceAll(status, "grep", "busybox grep")
		d.container("ids", []string{"--rootfs", root}, "busybox", "sleep", "1000")
		for _, r := range []result{
			d.try("run", "--rm", "--user", "7:8", "--rootfs", root, "--", "sh", "-c", "id; "+status),
			d.try("exec", "-u", "7:8", "ids", "sh", "-c", "id; "+status),
		} {
			if !strings.Contains(r.stdout, "uid=7 gid=8\n") ||
				!strings.Contains(r.stdout, "CapEff:\t0000000000000000") || !strings.Contains(r.stdout, "Seccomp:\t2") {
				t.Errorf("%v", r)
			}
		}
	})
	d.fails("unknown capability", "run", "--cap-add", "EVERYTHING", "--", "true")
	d.fails("--security-opt", "run", "--security-opt", "apparmor=x", "--", "true")
	d.fails("no such file", "run", "--security-opt", "seccomp=/no/such/file", "--", "true")
}
