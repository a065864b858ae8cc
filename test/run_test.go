package test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, test := range []struct {
		name    string
		command []string
		want    int
	}{
		{"success", []string{"true"}, 0},
		{"failure", []string{"false"}, 1},
		{"a number", []string{"sh", "-c", "exit 37"}, 37},
		{"killed by a signal", []string{"sh", "-c", "kill -TERM $$; sleep 9"}, 128 + 15},
		{"no such command", []string{"/no/such/command"}, 127},
		{"not executable", []string{"/etc/passwd"}, 126},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := d.in(t)
			r := d.try(append([]string{"run", "--rm", "--"}, test.command...)...)
			if r.code != test.want {
				t.Errorf("want %d: %v", test.want, r)
			}
		})
	}
	d.fails("--no-such-flag", "run", "--no-such-flag", "--", "true")
	if out := d.ok("ps", "-aq"); out != "" {
		t.Errorf("--rm left containers: %s", out)
	}
}

func TestStandardStreams(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	input := strings.Repeat("a line of text\n", 50000)
	r := d.commandInput(input, usernet, "run", "--rm", "-i", "--", "sh", "-c", "cat; echo to stderr >&2")
	if r.stdout != input || r.stderr != "to stderr\n" || r.code != 0 {
		t.Errorf("got %d bytes of %d, stderr %q, status %d", len(r.stdout), len(input), r.stderr, r.code)
	}
	r = d.commandInput("unread", usernet, "run", "--rm", "--", "cat")
	if r.stdout != "" || r.code != 0 {
		t.Errorf("without -i standard input is not passed: %v", r)
	}
}

func TestSandboxHasNamespacesOfItsOwn(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("box", "-e", "COLOUR=blue", "-w", "/usr", "--hostname", "box")
	for _, ns := range []string{"user", "net", "mnt", "uts", "ipc", "pid"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", d.pid("box"), ns)); err != nil || theirs == ours {
			t.Errorf("%s namespace: ours %s, the sandbox's %s, %v", ns, ours, theirs, err)
		}
	}
	d.says("lo", "box", "ip", "-br", "link")
	r := d.try("run", "--rm", "-e", "COLOUR=blue", "-w", "/usr", "--hostname", "box", "--",
		"sh", "-c", "echo $COLOUR $PWD $(hostname) $(id -u)")
	if r.stdout != "blue /usr box 0\n" {
		t.Errorf("%v", r)
	}
	r = d.try("run", "--rm", "--", "sh", "-c", "ls /proc | grep -c '^[0-9]'")
	if n := strings.TrimSpace(r.stdout); len(n) != 1 {
		t.Errorf("/proc shows %s processes", n)
	}
}

func TestRootfs(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	root := filepath.Join(d.dir, "rootfs")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{busybox, helper} {
		if out, err := exec.Command("cp", program, filepath.Join(root, "bin")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet"}, helper, "tcpserve", ":80", "addr")
	r := d.try("run", "--rm", "--network", "mynet", "--rootfs", root, "--", "/bin/busybox", "ls", "/")
	for _, want := range []string{"bin", "dev", "etc", "proc", "sys"} {
		if !strings.Contains("\n"+r.stdout, "\n"+want+"\n") {
			t.Errorf("the root lacks %s: %v", want, r)
		}
	}
	if strings.Contains(r.stdout, "home") {
		t.Errorf("the root is the caller's: %v", r)
	}
	r = d.try("run", "--rm", "--network", "mynet", "--rootfs", root, "--", "/bin/helper", "tcpdial", "web:80")
	if !strings.HasPrefix(r.stdout, "ok") {
		t.Errorf("names do not work in another root: %v", r)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	cmd := exec.Command(usernet, "run", "--rm", "--", "sh", "-c",
		`trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.1; done`)
	cmd.Env = d.environ()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(out)
	cmd.Wait()
	if string(rest) != "got TERM\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("printed %q, status %d", rest, cmd.ProcessState.ExitCode())
	}
}

// terminal runs usernet on a pseudo-terminal and returns a function that waits until words appeared.
func (d *daemon) terminal(size *pty.Winsize, args ...string) (*exec.Cmd, *os.File, func(words string)) {
	d.t.Helper()
	cmd := exec.Command(usernet, args...)
	cmd.Env = d.environ()
	tty, err := pty.StartWithSize(cmd, size)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		tty.Close()
		cmd.Process.Kill()
	})
	var seen struct {
		sync.Mutex
		bytes.Buffer
	}
	go func() { // until the terminal is closed
		piece := make([]byte, 4096)
		for {
			n, err := tty.Read(piece)
			seen.Lock()
			seen.Write(piece[:n])
			seen.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return cmd, tty, func(words string) {
		d.t.Helper()
		eventually(d.t, func() error {
			seen.Lock()
			defer seen.Unlock()
			if !strings.Contains(seen.String(), words) {
				return fmt.Errorf("the terminal does not show %q, but %q", words, seen.String())
			}
			return nil
		})
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	cmd, tty, sees := d.terminal(&pty.Winsize{Cols: 132, Rows: 40}, "run", "--rm", "-it", "--", "sh")
	fmt.Fprintf(tty, "%s winsize\n", helper)
	sees("132 40")
	if err := pty.Setsize(tty, &pty.Winsize{Cols: 99, Rows: 33}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(tty, "until %s winsize | grep '99 33'; do :; done </dev/tty\n", helper)
	sees("99 33\r\n")
	fmt.Fprint(tty, "tty; sleep 1000\n")
	sees("/dev/")
	eventually(t, func() error {
		if !strings.Contains(d.ok("exec", d.ok("ps", "-q"), "ps", "ax"), "sleep 1000") {
			return fmt.Errorf("sleep does not run yet")
		}
		return nil
	})
	tty.Write([]byte{3}) // Ctrl-C ends sleep, not the shell
	fmt.Fprint(tty, "echo status-$?\n")
	sees("status-130")
	fmt.Fprint(tty, "exit 5\n")
	watchdog := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit status %d", code)
	}
}

func TestDetachedLife(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	id := d.container("web", []string{"-e", "A=b"}, "sh", "-c",
		`echo out; echo err >&2; trap 'echo stopping; exit 3' TERM; while :; do sleep 0.1; done`)
	if len(id) != 64 {
		t.Errorf("run -d prints %q, not an id", id)
	}
	d.logged("web", "err")
	if r := d.try("logs", "web"); r.stdout != "out\n" || r.stderr != "err\n" {
		t.Errorf("logs keeps the streams apart: %v", r)
	}
	out := d.ok("ps")
	for _, want := range []string{"CONTAINER ID", "COMMAND", "STATUS", "PORTS", "NAMES", id[:12], "web", "Up"} {
		if !strings.Contains(out, want) {
			t.Errorf("ps lacks %q: %s", want, out)
		}
	}
	d.says("b", "web", "sh", "-c", "echo $A")
	if r := d.exec("web", "sh", "-c", "exit 9"); r.code != 9 {
		t.Errorf("exec passes the exit status: %v", r)
	}
	if r := d.commandInput("through", usernet, "exec", "-i", "web", "cat"); r.stdout != "through" {
		t.Errorf("exec -i passes standard input: %v", r)
	}
	d.fails("is already in use by container", "run", "-d", "--name", "web", "--", "true")
	d.fails("running", "rm", "web")
	d.ok("stop", "web")
	if out := d.logged("web", "stopping"); strings.Contains(out, "stopping\nstopping") {
		t.Errorf("the signal arrived twice: %s", out)
	}
	if out := d.ok("ps", "-a"); !strings.Contains(out, "Exited (3)") {
		t.Errorf("ps -a does not show the exit status: %s", out)
	}
	if out := d.ok("ps", "-q"); out != "" {
		t.Errorf("ps shows a stopped container: %s", out)
	}
	d.fails("is not running", "exec", "web", "true")
	d.ok("rm", "web")
	d.fails("No such container: web", "rm", "web")
	d.fails("No such container: web", "logs", "web")
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.container("deaf", nil, "sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.1; done`)
	d.logged("deaf", "ready")
	d.ok("stop", "-t", "1", "deaf")
	if out := d.ok("ps", "-a"); !strings.Contains(out, "Exited (137)") {
		t.Errorf("%s", out)
	}
}

func TestNetworkModes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	t.Run("none", func(t *testing.T) {
		d := d.in(t)
		r := d.try("run", "--rm", "--network", "none", "--", "ip", "-br", "addr")
		if !strings.Contains(r.stdout, "lo") || strings.Contains(r.stdout, "eth") {
			t.Errorf("%v", r)
		}
	})
	t.Run("host", func(t *testing.T) {
		d := d.in(t)
		r := d.try("run", "--rm", "--network", "host", "-p", "80:80", "--", "ip", "-br", "addr")
		if !strings.Contains(r.stdout, host4) || !strings.Contains(r.stderr, "Published ports are discarded when using host network mode") {
			t.Errorf("%v", r)
		}
	})
	t.Run("container", func(t *testing.T) {
		d := d.in(t)
		d.serve("web", nil, helper, "tcpserve", "127.0.0.1:80", "addr")
		r := d.try("run", "--rm", "--network", "container:web", "--", helper, "tcpdial", "127.0.0.1:80")
		if !strings.HasPrefix(r.stdout, "ok") {
			t.Errorf("%v", r)
		}
		d.fails("conflicting options: port publishing and the container type network mode",
			"run", "--rm", "--network", "container:web", "-p", "80:80", "--", "true")
	})
}
