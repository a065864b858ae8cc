package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// firstUser is the id of host 1's user; nobody has it, nor those after it.
const firstUser = 42410

// A host is a network namespace with a user and a daemon.
type host struct {
	t   testing.TB
	n   int
	dir string
	cmd *exec.Cmd
	log *os.File
	// ended is closed when cmd has been waited for.
	ended chan struct{}
	flags []string
}

// newHost prepares host n (1 to 4) for the length of a test, without starting its daemon.
func newHost(t testing.TB, n int) *host {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", fmt.Sprintf("uo%d-", n)) // short: a socket's path has 108 bytes at most (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, n: n, dir: dir}
	for _, d := range []string{"", "home", "run", "state"} {
		path := filepath.Join(dir, d)
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chown(path, h.uid(), h.uid())); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.end)
	return h
}

func (h *host) uid() int       { return firstUser + h.n }
func (h *host) ns() string     { return fmt.Sprintf("/run/netns/xh-h%d", h.n) }
func (h *host) addr() string   { return fmt.Sprintf("192.0.2.%d", h.n) }
func (h *host) socket() string { return filepath.Join(h.dir, "run/usernet/usernet.sock") }

// command is a program in the host's namespace, as its user and without capabilities.
func (h *host) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	id := strconv.Itoa(h.uid())
	all := []string{
		"--net=" + h.ns(), "setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--inh-caps=-all",
		"--bounding-set=-all", "--",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
		"HOME=" + filepath.Join(h.dir, "home"), "XDG_RUNTIME_DIR=" + filepath.Join(h.dir, "run"),
		"XDG_STATE_HOME=" + filepath.Join(h.dir, "state"),
		"DOCKER_HOST=unix://" + h.socket(), name,
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(all, args...)...)
	cmd.Dir = h.dir
	cmd.WaitDelay = 5 * time.Second // a detached container must not keep our pipes; if it does, the test sees it
	return cmd
}

// start starts the daemon and waits until it answers.
func (h *host) start(flags ...string) {
	h.t.Helper()
	h.launch(flags...)
	h.answers()
}

// answers waits until the daemon answers.
func (h *host) answers() {
	h.t.Helper()
	eventually(h.t, func() error {
		select {
		case <-h.ended:
			h.t.Fatalf("the daemon of host %d ended at once: %v\n%s", h.n, h.cmd.ProcessState, h.logText())
		default:
		}
		if r := h.try("network", "ls", "-q"); r.code != 0 {
			return fmt.Errorf("the daemon of host %d does not answer: %s\n%s", h.n, r.stderr, h.logText())
		}
		return nil
	})
}

// launch starts the daemon.
func (h *host) launch(flags ...string) {
	h.t.Helper()
	h.flags = flags
	h.cmd = h.command(context.Background(), usernet, append([]string{"serve", "--log-level", "debug"}, flags...)...)
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	h.log = log
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(h.cmd, h.ended)
}

// stop sends a signal and waits for the daemon's end.
func (h *host) stop(signal os.Signal) int {
	h.t.Helper()
	_ = h.cmd.Process.Signal(signal)
	select {
	case <-h.ended:
	case <-time.After(patience):
		_ = h.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks
		<-h.ended
		h.t.Errorf("the daemon of host %d did not end on %v\n%s", h.n, signal, h.logText())
	}
	_ = h.log.Close()
	code := h.cmd.ProcessState.ExitCode()
	h.cmd = nil
	return code
}

// again starts the daemon with the flags that it had.
func (h *host) again() {
	h.t.Helper()
	h.start(h.flags...)
}

// end is the clean end that every test is held to.
func (h *host) end() {
	if h.cmd != nil {
		if h.t.Failed() {
			h.t.Logf("host %d: cluster inspect: %s", h.n, h.try("cluster", "inspect"))
		}
		if ids := strings.Fields(h.try("ps", "-aq").stdout); len(ids) > 0 {
			h.try(append([]string{"rm", "-f"}, ids...)...)
		}
		if code := h.stop(syscall.SIGTERM); code != 0 {
			h.t.Errorf("the daemon of host %d ended with status %d\n%s", h.n, code, h.logText())
		}
	}
	text := h.logText()
	if strings.Contains(text, "panic:") || strings.Contains(text, "a fault in usernet ended") {
		h.t.Errorf("the daemon of host %d panicked:\n%s", h.n, text)
	} else if h.t.Failed() {
		h.t.Logf("the log of host %d:\n%s", h.n, tail(text, 120))
	}
	_ = os.RemoveAll(h.dir)
}

// tail is the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (h *host) logText() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return string(text)
}

// A result is what a program did.
type result struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s\nexit status %d after %v\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.took,
		r.stdout, r.stderr)
}

// run runs any program on the host, as its user.
func (h *host) run(name string, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := h.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := result{args: append([]string{fmt.Sprintf("host %d:", h.n), name}, args...), stdout: stdout.String(),
		stderr: stderr.String(), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		h.t.Fatalf("no end after %v: %v", commandLimit, r)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		h.t.Fatalf("%v: %v", r, err)
	}
	return r
}

// try runs usernet.
func (h *host) try(args ...string) result { h.t.Helper(); return h.run(usernet, args...) }

// ok runs usernet, which has to succeed, and returns its output without the final newline.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	r := h.try(args...)
	if r.code != 0 {
		h.t.Fatalf("failed: %v", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// fails runs usernet, which has to fail and to say words on standard error.
func (h *host) fails(words string, args ...string) result {
	h.t.Helper()
	r := h.try(args...)
	if r.code == 0 || !strings.Contains(r.stderr, words) {
		h.t.Errorf("wanted a failure with %q: %v", words, r)
	}
	return r
}

// docker runs the stock docker client, which has to succeed.
func (h *host) docker(args ...string) string {
	h.t.Helper()
	r := h.run("docker", args...)
	if r.code != 0 {
		h.t.Fatalf("failed: %v", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// container starts a container in the background.
func (h *host) container(name string, flags []string, command ...string) {
	h.t.Helper()
	args := append([]string{"run", "-d", "--cap-add", "NET_ADMIN", "--name", name}, flags...)
	h.ok(append(append(args, "--"), command...)...)
}

// idle starts one that does nothing.
func (h *host) idle(name string, flags ...string) {
	h.t.Helper()
	h.container(name, flags, "busybox", "sleep", "1000000")
}

// serve starts a server in a container that says "listening" when it is ready.
func (h *host) serve(name string, flags []string, command ...string) {
	h.t.Helper()
	h.container(name, flags, command...)
	eventually(h.t, func() error {
		if r := h.try("logs", name); !strings.Contains(r.stdout+r.stderr, "listening") {
			return fmt.Errorf("%s does not listen: %v", name, r)
		}
		return nil
	})
}

// exec runs a command in a container.
func (h *host) exec(name string, command ...string) result {
	h.t.Helper()
	return h.try(append([]string{"exec", name}, command...)...)
}

// address is the IPv4 address of an interface of a container.
func (h *host) address(name, iface string) netip.Addr {
	h.t.Helper()
	r := h.exec(name, "ip", "-4", "addr", "show", iface)
	match := regexp.MustCompile(`inet ([0-9.]+)/`).FindStringSubmatch(r.stdout)
	if match == nil {
		h.t.Fatalf("no address: %v", r)
	}
	return netip.MustParseAddr(match[1])
}

// pings waits until a container reaches another by name.
func (h *host) pings(name, target string) {
	h.t.Helper()
	eventually(h.t, func() error { return h.ping(name, target) })
}

// ping sends a container's ping to a name or address, once.
func (h *host) ping(name, target string) error {
	h.t.Helper()
	if r := h.exec(name, "ping", "-c", "1", "-W", "2", target); r.code != 0 {
		return fmt.Errorf("no answer: %v", r)
	}
	return nil
}

// rootIn runs a program in a namespace as root, for what an administrator would do.
func rootIn(t testing.TB, ns string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + ns}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s in %s: %v: %s", strings.Join(args, " "), ns, err, out)
	}
	return string(out)
}

// addNamespace makes a network namespace for the length of a test. cable is the end outside, in the namespace at, of
// the virtual cable that the test leads into it. It is removed by name: the kernel would do so only when the last
// socket in the namespace has ended, and one that is still to be acknowledged outlives its process.
func addNamespace(t testing.TB, name, at, cable string) {
	t.Helper()
	const sw = "/run/netns/xh-sw"
	rootIn(t, sw, "ip", "netns", "add", name)
	t.Cleanup(func() {
		// It is not there where the test ended before it was made.
		_ = exec.Command("nsenter", "--net="+at, "ip", "link", "del", cable).Run()
		rootIn(t, sw, "ip", "netns", "del", name)
	})
}

// cut takes the host's cable out, and plug puts it in again.
func (h *host) cut() {
	h.t.Helper()
	rootIn(h.t, "/run/netns/xh-sw", "ip", "link", "set", fmt.Sprintf("e%d", h.n), "down")
}
func (h *host) plug() {
	h.t.Helper()
	rootIn(h.t, "/run/netns/xh-sw", "ip", "link", "set", fmt.Sprintf("e%d", h.n), "up")
}
