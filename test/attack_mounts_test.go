package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// masked has everything run in user and mount namespaces further down, with a file of /proc masked as in containers of
// Docker's and of CI runners: the kernel then refuses a fresh /proc.
func (d daemon) masked() *daemon {
	script := `mount --bind /dev/null /proc/timer_list && exec "$@"`
	d.prefix = append([]string{"unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-e", "-c", script, "sh"},
		d.prefix...)
	return &d
}

// attackCallersProc starts a container with a root file system of its own where the kernel refuses a fresh /proc. The
// caller's, with /proc/PID/root of the caller's processes, must not be there.
func attackCallersProc(t *testing.T) {
	d := startDaemon(t)
	root := d.rootfs()
	in := d.masked()
	// The kernel lets nobody mount a fresh one there: else this test would show nothing.
	if r := in.command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "mount", "-t", "proc",
		"proc", "/proc"); r.code == 0 {
		t.Fatalf("a fresh /proc can be mounted here: %v", r)
	}
	r := in.try("run", "--rm", "--network", "none", "--rootfs", root, "--", "/bin/busybox", "ls", "/proc")
	if r.code != 125 || !strings.Contains(r.stderr, "systempaths=unconfined") {
		t.Errorf("a /proc of its own is impossible, and this is not said: %v", r)
	}
	r = in.try("run", "--rm", "--network", "none", "--security-opt", "proc=none", "--rootfs", root, "--",
		"/bin/busybox", "ls", "/proc")
	if r.code != 0 || r.stdout != "" {
		t.Errorf("/proc is not empty: %v", r)
	}
	// Nor do the processes that enter the sandbox lead to the host, in an ordinary container.
	d.idle("box", "--rootfs", root)
	r = d.exec("box", "busybox", "sh", "-c", `for p in /proc/[0-9]*; do busybox ls $p/root/home && echo ESCAPED through $p; done 2>/dev/null; echo $(busybox ls -d /proc/[0-9]* | busybox wc -l)`)
	if strings.Contains(r.stdout, "ESCAPED") {
		t.Errorf("%v", r)
	}
}

// attackUnmount takes /sys and /proc away, whatever is below them, with all capabilities that a container can have.
func attackUnmount(t *testing.T) {
	d := startDaemon(t)
	for _, kind := range []string{"rootfs", "the caller's files"} {
		t.Run(kind, func(t *testing.T) {
			d := d.in(t)
			flags := []string{"run", "--rm", "--privileged"}
			if kind == "rootfs" {
				flags = append(flags, "--rootfs", d.rootfs())
			}
			r := d.try(append(flags, "--", "busybox", "sh", "-c", `
				for m in /sys /proc /dev/shm /dev/pts /etc/hosts /dev/null; do
					while busybox umount $m 2>/dev/null || busybox umount -l $m 2>/dev/null; do echo unmounted $m; done
				done
				busybox ls -d /sys/fs/cgroup/* 2>/dev/null
				for d in / /proc /sys /sys/fs/cgroup; do busybox find $d -maxdepth 5 -name cgroup.kill 2>/dev/null; done
				[ "$(busybox ls -d /proc/[0-9]* | busybox wc -l)" -lt 9 ] || busybox ls -d /proc/[0-9]*`)...)
			if r.stdout != "" {
				t.Errorf("%v", r)
			}
			// A copy of the mounts in namespaces further down has them locked as well.
			r = d.try(append(flags, "--", "busybox", "unshare", "-U", "-r", "-m", "busybox", "sh", "-c",
				`busybox umount /proc 2>/dev/null && echo unmounted; busybox mount -o remount,bind,rw /etc/hosts; :`)...)
			if strings.Contains(r.stdout, "unmounted") {
				t.Errorf("%v", r)
			}
		})
	}
	t.Run("read-only and masked paths", func(t *testing.T) {
		d := d.in(t)
		r := d.try("run", "--rm", "--rootfs", d.rootfs(), "--", "busybox", "sh", "-c", `
			echo 1 >/proc/sys/net/ipv4/ip_forward && echo /proc/sys is writable
			echo h >/proc/sysrq-trigger && echo sysrq
			busybox mount -o remount,bind,rw /proc/sys && echo remounted
			busybox umount /proc/sys && echo unmounted
			busybox umount /proc/kcore && echo unmounted /proc/kcore
			busybox wc -c </proc/timer_list`)
		if strings.TrimSpace(r.stdout) != "0" {
			t.Errorf("%v", r)
		}
	})
}

// attackDevices looks for the host's terminals, shared memory and devices in /dev.
func attackDevices(t *testing.T) {
	d := startDaemon(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	secret := filepath.Join("/dev/shm", filepath.Base(d.dir))
	if err := os.WriteFile(secret, []byte("user-shm-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	root := d.rootfs()
	r := d.try("run", "--rm", "--privileged", "--rootfs", root, "--", "busybox", "sh", "-c",
		"echo injected >"+slave.Name()+
			"; busybox ls /dev/shm /dev/pts; busybox cat "+secret+"; busybox umount -l /dev/pts; busybox umount -l /dev/shm; busybox umount -l /dev; busybox ls /dev/shm /dev/pts; busybox ls /dev")
	for _, bad := range []string{"user-shm-secret", filepath.Base(secret), "tty0", "net\n", "vda", "sda", "kmsg"} {
		if strings.Contains(r.stdout, bad) {
			t.Errorf("%q is there: %v", bad, r)
		}
	}
	want := strings.Fields("console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero")
	names := d.ok("run", "--rm", "-t", "--rootfs", root, "--", "busybox", "ls", "-1", "/dev")
	if got := strings.Fields(names); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("/dev has %q, want %q", got, want)
	}
	if out := d.ok("run", "--rm", "-t", "--rootfs", root, "--", "busybox", "sh", "-c",
		"tty; ls /dev/pts"); !strings.Contains(out, "/dev/pts/0") || strings.Contains(out, "1") {
		t.Errorf("the terminal is not one of the sandbox's own: %q", out)
	}
	d.idle("box", "--rootfs", root)
	if out := d.ok("exec", "-t", "box", "busybox", "sh", "-c",
		"tty; stty size >/dev/null && echo sized"); !strings.Contains(out, "/dev/pts/0") || !strings.Contains(out,
		"sized") {
		t.Errorf("the terminal of exec is not one of the sandbox's own: %q", out)
	}
	// what waits for a reader
	d.ok("exec", "box", "busybox", "sh", "-c", "busybox rm /dev/ptmx; busybox mkfifo /dev/ptmx")
	if r := d.try("exec", "-t", "box", "busybox", "true"); r.code != 125 || r.stderr !=
		"usernet: terminal: /dev/ptmx of the sandbox is none\nSee: usernet explain something-failed-on-this-machine\n" {
		t.Errorf("a FIFO for a terminal: %v", r)
	}
	d.ok("run", "--rm", "--rootfs", root, "--", "busybox", "sh", "-c", "echo x >/dev/null && [ $(busybox head -c 9 /dev/zero | busybox wc -c) = 9 ] && echo x >/dev/shm/x && echo text >/dev/stdout")
	if out := d.ok("run", "--rm", "--device", "/dev/net/tun", "--rootfs", root, "--", "busybox", "ls",
		"/dev/net"); out != "tun" {
		t.Errorf("--device: %q", out)
	}
}

// attackRootfsLinks has links in a root file system that lead to the host's files when they are followed there.
func attackRootfsLinks(t *testing.T) {
	d := startDaemon(t)
	for _, link := range []string{"etc", "etc/hosts", "etc/resolv.conf", "dev", "proc", "sys", "tmp"} {
		t.Run(link, func(t *testing.T) {
			d := d.in(t)
			root := d.rootfs()
			outside, err := os.MkdirTemp(d.dir, "outside-")
			if err != nil {
				t.Fatal(err)
			}
			target := outside
			if strings.Contains(link, "/") {
				target = filepath.Join(outside, "made")
				if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
			r := d.try("run", "--rm", "--rootfs", root, "--", "/bin/busybox", "cat", "/etc/hosts")
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("made on the host: %v, %v; %v", left, err, r)
			}
			if strings.Contains(link, "/") != (r.code == 0 && strings.Contains(r.stdout, "localhost")) {
				t.Errorf("%v", r)
			}
		})
	}
}

// attackAPIFromInside opens usernet's API from a container that has the caller's files.
func attackAPIFromInside(t *testing.T) {
	d := newDaemon(t)
	d.socket = filepath.Join(d.dir, "run", "usernet", "usernet.sock")
	if err := os.MkdirAll(filepath.Dir(d.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.ok("network", "create", "--egress", "deny", "jail")
	script := fmt.Sprintf(`while umount %[1]s || umount -l %[1]s; do :; done 2>/dev/null
		curl -sS --unix-socket %[2]s -d '{"Container":"jail"}' http://d/networks/bridge/connect; ls %[1]s %[3]s; ip -br link`,
		filepath.Dir(d.socket), d.socket, filepath.Join(d.dir, "state"))
	r := d.try("run", "--rm", "--privileged", "--name", "jail", "--network", "jail", "--", "sh", "-c", script)
	if strings.Contains(r.stdout, "eth1") || strings.Contains(r.stdout, "usernet.") ||
		strings.Contains(r.stdout, "containers") {
		t.Errorf("%v", r)
	}
	r = d.try("run", "--rm", "--share-api", "--", "ls", filepath.Dir(d.socket))
	if !strings.Contains(r.stdout, "usernet.sock") {
		t.Errorf("--share-api: %v", r)
	}
	// Where its directory has other things in it, the socket alone is covered, and the state.
	other := startDaemon(t)
	r = other.try("run", "--rm", "--", "sh", "-c",
		"curl -sS --unix-socket "+other.socket+" http://d/version; ls "+filepath.Join(other.dir, "state"))
	if r.stdout != "" {
		t.Errorf("%v", r)
	}
}

// TestSharedDirectoriesStaySeen has the socket and the state in directories with other files, one of them named by a
// relative path: a sandbox sees those files, and nothing of usernet's beside them.
func TestSharedDirectoriesStaySeen(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	shared := filepath.Join(d.dir, "usernet-work")
	state := filepath.Join(d.dir, "state")
	for _, dir := range []string{shared, state} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("mine\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.socket = filepath.Join(shared, "x.sock")
	d.prefix = append(d.prefix, "--chdir="+d.dir)
	d.flags = append(d.flags, "--state-dir", "state") // the last one counts
	d.start()
	script := fmt.Sprintf(`cat %[1]s/notes %[2]s/notes
		ls %[2]s/containers; cat %[2]s/usernet.db %[2]s/socket; curl -sS --unix-socket %[1]s/x.sock http://d/version`, shared, state)
	r := d.try("run", "--rm", "--privileged", "--", "sh", "-c", script)
	if r.stdout != "mine\nmine\n" {
		t.Errorf("%v", r)
	}
	r = d.try("run", "--rm", "--share-api", "--", "sh", "-c", script)
	if !strings.Contains(r.stdout, "ApiVersion") || !strings.Contains(r.stdout, "x.sock\n") {
		t.Errorf("--share-api: %v", r)
	}
}

// attackProcOfTheHost looks below the /proc of a container that has the caller's files, and for the processes that
// enter its namespaces.
func attackProcOfTheHost(t *testing.T) {
	d := startDaemon(t)
	d.ok("network", "create", "second")
	d.idle("box", "--privileged")
	d.ok("network", "connect", "second", "box") // an agent has been there
	daemonPid := d.cmd.Process.Pid
	r := d.exec("box", "sh", "-c", fmt.Sprintf(`
		while umount /proc || umount -l /proc; do echo unmounted; done 2>/dev/null
		mkdir -p /tmp/p.$$ && mount -t proc proc /tmp/p.$$ 2>/dev/null && ls -d /tmp/p.$$/%[1]d; umount /tmp/p.$$ 2>/dev/null; rmdir /tmp/p.$$
		kill -0 %[1]d 2>/dev/null && echo may signal; ls -d /proc/%[1]d`, daemonPid))
	if r.stdout != "" {
		t.Errorf("%v", r)
	}
}

// TestNoServiceOfTheHostIsReached has resolvers of the host listen where the C library looks for them.
func TestNoServiceOfTheHostIsReached(t *testing.T) {
	d := startDaemon(t)
	dir := filepath.Join(d.dir, "services")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var sockets []string
	for _, path := range []string{"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve",
		"/run/dbus/system_bus_socket", "/run/avahi-daemon/socket"} {
		name := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sockets = append(sockets, name+":"+path)
	}
	asRoot(t, "mount -t tmpfs none /run; for s in "+strings.Join(sockets, " ")+`; do mkdir -p $(dirname ${s#*:}); touch ${s#*:}; mount --bind ${s%%:*} ${s#*:}; done`)
	t.Cleanup(func() { asRoot(t, "umount -R /run") })
	look := "for s in /run/*/*socket /run/systemd/resolve/*; do busybox nc -U $s </dev/null && echo $s; socat -u OPEN:/dev/null UNIX-CONNECT:$s && echo reached $s; done 2>/dev/null"
	if r := d.try("run", "--rm", "--share-services", "--", "sh", "-c", look); strings.Count(r.stdout, "reached") != len(
		sockets) {
		t.Errorf("--share-services: %v", r)
	}
	if r := d.try("run", "--rm", "--", "sh", "-c", look); strings.Contains(r.stdout, "reached") {
		t.Errorf("%v", r)
	}
	if _, err := exec.LookPath("getent"); err == nil {
		d.ok("network", "create", "named")
		d.idle("web", "--network", "named")
		if r := d.try("run", "--rm", "--network", "named", "--", "getent", "hosts", "web"); r.code != 0 {
			t.Errorf("%v", r)
		}
	}
}

func TestDockersSysctlsOfTheNetwork(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	r := d.try("run", "--rm", "--user", "1234", "--", "sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; busybox timeout 1 "+helper+" tcpserve 127.0.0.1:80 addr; ping -c 1 -W 5 127.0.0.1")
	if !strings.HasPrefix(r.stdout, "0\n") || !strings.Contains(r.stdout, "listening") ||
		!strings.Contains(r.stdout, "1 received") {
		t.Errorf("not root, and port 80 or ping are refused: %v", r)
	}
}

func TestHostnameIsInEtc(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, flags := range [][]string{{}, {"--rootfs", d.rootfs()}} {
		args := append(append([]string{"run", "--rm", "--hostname", "chosen"}, flags...), "--", "busybox", "cat",
			"/etc/hostname")
		if out := d.ok(args...); out != "chosen" {
			t.Errorf("%q: %q", args, out)
		}
	}
}
