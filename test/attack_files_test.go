package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// rootfs makes a root file system of busybox and the helper program, and returns its path.
func (d *daemon) rootfs() string {
	d.t.Helper()
	root, err := os.MkdirTemp(d.dir, "rootfs-")
	if err != nil {
		d.t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		d.t.Fatal(err)
	}
	script := `chmod 0755 "$1" && mkdir "$1/bin" && cp "$2" "$3" "$1/bin" && for a in sh cat ls mount umount chmod dd sleep mkdir id ps tty stty; do ln -s busybox "$1/bin/$a"; done`
	if out, err := exec.Command("sh", "-c", script, "sh", root, busybox, helper).CombinedOutput(); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	return root
}

// attackHostsFile makes /etc/hosts huge, fills it, and takes all permissions from it. What the daemon does with hosts
// files must cost the same as before, and the state's directory must not grow.
func attackHostsFile(t *testing.T) {
	for _, kind := range []string{"rootfs", "the caller's files"} {
		t.Run(kind, func(t *testing.T) {
			d := startDaemon(t)
			var flags []string
			if kind == "rootfs" {
				flags = []string{"--rootfs", d.rootfs()}
			}
			d.ok("network", "create", "second")
			d.ok("network", "create", "third")
			d.idle("box", flags...)
			before := d.memory()
			d.exec("box", "busybox", "truncate", "-s", "3G", "/etc/hosts")
			r := d.exec("box", "busybox", "sh", "-c", "busybox dd if=/dev/zero of=/etc/resolv.conf bs=1M count=40 || echo full")
			if !strings.Contains(r.stdout, "full") {
				t.Errorf("40 MiB were written to /etc/resolv.conf: %v", r)
			}
			size := d.ok("exec", "box", "busybox", "sh", "-c", "busybox wc -c </etc/resolv.conf")
			if len(size) > 7 {
				t.Errorf("/etc/resolv.conf has %s bytes", size)
			}
			if used := diskUsed(t, filepath.Join(d.dir, "state", "containers")); used > 1<<20 {
				t.Errorf("the state's directory has %d bytes", used)
			}
			d.ok("exec", "box", "busybox", "chmod", "0", "/etc/hosts", "/etc/resolv.conf")
			d.ok("network", "connect", "second", "box")
			if after := d.memory(); after > before+100<<20 {
				t.Errorf("the daemon's memory grew from %d to %d bytes", before, after)
			}
			// The container sees the new text in the file that it made unreadable.
			hosts := func() string {
				d.ok("exec", "box", "busybox", "chmod", "0644", "/etc/hosts")
				return d.ok("exec", "box", "busybox", "cat", "/etc/hosts")
			}
			if got := hosts(); strings.Count(got, "\n") < 6 || !strings.Contains(got, d.addressAt("box", "eth1")) {
				t.Errorf("after the container wrote to it, /etc/hosts has no new text: %.300q", got)
			}
			d.exec("box", "busybox", "truncate", "-s", "3G", "/etc/hosts")
			d.ok("exec", "box", "busybox", "chmod", "0", "/etc/hosts")
			d.stop(syscall.SIGKILL)
			d.start()
			if after := d.memory(); after > before+100<<20 {
				t.Errorf("the memory of the daemon that was started again is %d bytes", after)
			}
			eventually(t, func() error {
				if got := hosts(); !strings.Contains(got, d.addressAt("box", "eth1")) {
					return fmt.Errorf("a daemon that starts again does not write /etc/hosts: %.300q", got)
				}
				return nil
			})
			d.ok("network", "connect", "third", "box")
			if got := hosts(); !strings.Contains(got, d.addressAt("box", "eth2")) {
				t.Errorf("a daemon that was started again does not write /etc/hosts: %.300q", got)
			}
		})
	}
}

// addressAt is the IPv4 address of one of a container's interfaces.
func (d *daemon) addressAt(name, device string) string {
	d.t.Helper()
	return d.field(`inet ([0-9.]+)/`, name, "busybox", "ip", "-4", "addr", "show", device)
}

func diskUsed(t *testing.T, dir string) (bytes int64) {
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Lstat(path, &st) == nil {
			bytes += st.Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// A disk that is full must not start containers that lack what usernet writes for them.
func TestContainersOnAFullDiskHaveTheirFilesOrAnError(t *testing.T) {
	d := newDaemon(t)
	state := filepath.Join(d.dir, "state")
	asRoot(t, "mkdir -p "+state+" && mount -t tmpfs -o size=256k,mode=0700 none "+state)
	t.Cleanup(func() { asRoot(t, "umount -l "+state) })
	d.start()
	fill := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(state, "fill"), "bs=4k")
	_ = fill.Run() // ends with the disk full
	r := d.try("run", "--rm", "--hostname", "onfulldisk", "--", "cat", "/etc/hosts", "/etc/resolv.conf")
	if r.code == 0 && (!strings.Contains(r.stdout, "onfulldisk") ||
		!strings.Contains(r.stdout, "nameserver 127.0.0.11")) {
		t.Errorf("exit status 0 without the files: %v", r)
	}
	if r.code != 0 && (r.code != 125 || !strings.Contains(r.stderr, "no space left on device")) {
		t.Errorf("the error does not say what is wrong: %v", r)
	}
	if err := os.Remove(filepath.Join(state, "fill")); err != nil {
		t.Fatal(err)
	}
	if out := d.ok("run", "--rm", "--hostname", "roomagain", "--", "cat", "/etc/hosts"); !strings.Contains(out,
		"roomagain") {
		t.Errorf("with room on the disk: %s", out)
	}
}
