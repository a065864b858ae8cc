package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
)

// patience is how long a test waits for something that happens at once on a machine with nothing else to do: long
// enough for two processors that have thirty other things to do. commandLimit ends a program that waits for ever.
const (
	patience     = 2 * time.Minute
	commandLimit = 5 * time.Minute
)

// A daemon is a running `usernet serve` with a private socket and state.
type daemon struct {
	t      testing.TB
	dir    string
	socket string
	flags  []string
	// dockerCLI is the docker client that docker runs.
	dockerCLI string
	prefix    []string   // command under which everything runs, for other namespaces than the world's
	files     []*os.File // that the daemon inherits
	// faulty says that faults are injected: without it a panic fails the test also where the daemon survived it.
	faulty bool
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when cmd has been waited for
}

// startDaemon starts one for the length of a test, which it fails if the daemon does not end cleanly.
func startDaemon(t testing.TB, flags ...string) *daemon {
	t.Helper()
	d := newDaemon(t, flags...)
	d.start()
	return d
}

// in is the same daemon for use in a subtest.
func (d *daemon) in(t testing.TB) *daemon {
	sub := *d
	sub.t = t
	return &sub
}

// newDaemon prepares one without starting it.
func newDaemon(t testing.TB, flags ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "un-") // short: a socket's path has 108 bytes at most (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, socket: filepath.Join(dir, "usernet.sock"), flags: flags}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.end)
	return d
}

// environ is what every program of the test is started with.
func (d *daemon) environ() []string {
	return append(os.Environ(),
		"USERNET_HOST=unix://"+d.socket, "DOCKER_HOST=unix://"+d.socket,
		"XDG_RUNTIME_DIR="+filepath.Join(d.dir, "run"), "XDG_STATE_HOME="+filepath.Join(d.dir, "home"),
		"XDG_CONFIG_HOME="+filepath.Join(d.dir, "config"), // the user's own configuration is no part of the tests
		raceLog(d.dir), "LC_ALL=C")
}

// raceLog has reports of data races written to files in a directory, whose names begin with race.
func raceLog(dir string) string {
	return "GORACE=atexit_sleep_ms=0 log_path=" + filepath.Join(dir, "race")
}

// start starts the daemon and waits until it answers.
func (d *daemon) start() {
	d.t.Helper()
	args := append([]string{"serve", "--socket", d.socket, "--state-dir", filepath.Join(d.dir, "state")}, d.flags...)
	d.cmd = exec.Command("env", append(append(slices.Clone(d.prefix), daemonProgram), args...)...)
	d.cmd.Env = append(d.environ(), raceLog(filepath.Join(d.dir, "state"))) // where a confined daemon can write
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	d.log = log
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.ExtraFiles = d.files
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: 0, Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(d.cmd, d.ended)
	eventually(d.t, func() error {
		select {
		case <-d.ended:
			d.t.Fatalf("the daemon ended at once: %v\n%s", d.cmd.ProcessState, d.logText())
		default:
		}
		if r := d.try("network", "ls", "-q"); r.code != 0 {
			return fmt.Errorf("the daemon does not answer: %s\n%s", r.stderr, d.logText())
		}
		return nil
	})
}

// stop sends a signal, waits for the daemon's end, and returns its exit status (-1: killed).
func (d *daemon) stop(signal os.Signal) int {
	d.t.Helper()
	d.cmd.Process.Signal(signal)
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks
		<-d.ended
		d.t.Errorf("the daemon did not end on %v\n%s", signal, d.logText())
	}
	d.log.Close()
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	return code
}

// end is the clean end that every test is held to.
func (d *daemon) end() {
	if d.cmd != nil {
		if d.t.Failed() {
			d.t.Logf("the daemon's state:\n%s", d.try("info").stdout)
		}
		if ids := strings.Fields(d.try("ps", "-aq").stdout); len(ids) > 0 {
			d.try(append([]string{"rm", "-f"}, ids...)...)
		}
		if code := d.stop(syscall.SIGTERM); code != 0 {
			d.t.Errorf("the daemon ended with status %d\n%s", code, d.logText())
		}
	}
	eventually(d.t, func() error {
		if left := d.processes(); len(left) > 0 {
			return fmt.Errorf("processes are left behind: %v", left)
		}
		return nil
	})
	if _, err := os.Stat(d.socket); err == nil {
		d.t.Errorf("the daemon's socket %s is left behind", d.socket)
	}
	races, _ := filepath.Glob(filepath.Join(d.dir, "race.*"))
	daemons, _ := filepath.Glob(filepath.Join(d.dir, "state", "race.*"))
	for _, file := range append(races, daemons...) {
		text, _ := os.ReadFile(file)
		d.t.Errorf("data race:\n%s", text)
	}
	text := d.logText()
	if !d.faulty && strings.Contains(text, "a fault in usernet ended") {
		d.t.Errorf("the daemon survived a panic:\n%s", text)
	}
	if strings.Contains(text, "panic:") || !d.faulty && strings.Contains(text, "goroutine 1 [") {
		d.t.Errorf("the daemon panicked:\n%s", text)
	} else if d.t.Failed() {
		d.t.Logf("the daemon's log:\n%s", text)
	}
	os.RemoveAll(d.dir)
}

func (d *daemon) logText() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(text)
}

// processes lists what runs with this test's directory in its environment: daemons, sandboxes, monitors.
func (d *daemon) processes() []string {
	var found []string
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil || !bytes.Contains(environ, []byte(d.dir+"/")) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		found = append(found, entry.Name()+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return found
}

// A result is what a program did.
type result struct {
	args           []string
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("%s\nexit status %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.stdout,
		r.stderr)
}

// command runs any program in the world with the daemon's environment.
func (d *daemon) command(name string, args ...string) result {
	d.t.Helper()
	return d.commandInput("", name, args...)
}

func (d *daemon) commandInput(stdin, name string, args ...string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "env", append(append(slices.Clone(d.prefix), name), args...)...)
	cmd.WaitDelay = time.Second // a detached container must not keep our pipes; if it does, the test sees it
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.environ(), strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	r := result{args: append([]string{name}, args...), stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		d.t.Fatalf("no end after %v: %v", commandLimit, r)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		d.t.Fatalf("%s: %v", strings.Join(r.args, " "), err)
	}
	return r
}

// keep starts a program that lives until its standard input, which is returned, is closed.
func (d *daemon) keep(name string, args ...string) io.WriteCloser {
	d.t.Helper()
	cmd := exec.Command("env", append(append(slices.Clone(d.prefix), name), args...)...)
	cmd.Env = d.environ()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		stdin.Close() // once more is no harm
		cmd.Wait()
	})
	return stdin
}

// try runs usernet.
func (d *daemon) try(args ...string) result {
	d.t.Helper()
	return d.command(usernet, args...)
}

// ok runs usernet, which has to succeed, and returns its output without the final newline.
func (d *daemon) ok(args ...string) string {
	d.t.Helper()
	r := d.try(args...)
	if r.code != 0 {
		d.t.Fatalf("failed: %v", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// json runs usernet with --json, which has to succeed, and decodes what it prints into v.
func (d *daemon) json(v any, args ...string) {
	d.t.Helper()
	r := d.try(append(args, "--json")...)
	if r.code != 0 {
		d.t.Fatalf("failed: %v", r)
	}
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		d.t.Fatalf("no JSON for %T: %v: %v", v, err, r)
	}
}

// ask sends the daemon a GET request, over a connection that does not stay, and decodes its answer into v.
func (d *daemon) ask(path string, v any) {
	d.t.Helper()
	r := d.command("curl", "-sS", "--fail-with-body", "--unix-socket", d.socket, "http://usernet"+path)
	if r.code != 0 {
		d.t.Fatalf("failed: %v", r)
	}
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		d.t.Fatalf("no JSON for %T: %v: %v", v, err, r)
	}
}

// flows lists the flows of a container, of all with "".
func (d *daemon) flows(container string) []api.Flow {
	d.t.Helper()
	args := []string{"flows"}
	if container != "" {
		args = append(args, container)
	}
	var list []api.Flow
	d.json(&list, args...)
	return list
}

// fails runs usernet, which has to fail and to say words on standard error.
func (d *daemon) fails(words string, args ...string) {
	d.t.Helper()
	r := d.try(args...)
	if r.code == 0 {
		d.t.Errorf("succeeded, but should fail: %v", r)
	}
	if !strings.Contains(r.stderr, words) {
		d.t.Errorf("standard error lacks %q: %v", words, r)
	}
}

// idle starts a container that does nothing, and returns its id.
func (d *daemon) idle(name string, flags ...string) string {
	d.t.Helper()
	return d.container(name, flags, "busybox", "sleep", "1000000")
}

// container starts a named container in the background that may configure its interfaces, and returns its id.
func (d *daemon) container(name string, flags []string, command ...string) string {
	d.t.Helper()
	args := append([]string{"run", "-d", "--cap-add", "NET_ADMIN", "--name", name}, flags...)
	return d.ok(append(append(args, "--"), command...)...)
}

// exec runs a command in a container.
func (d *daemon) exec(name string, command ...string) result {
	d.t.Helper()
	return d.try(append([]string{"exec", name}, command...)...)
}

// says runs a command in a container, which has to succeed and to print words.
func (d *daemon) says(words, name string, command ...string) {
	d.t.Helper()
	r := d.exec(name, command...)
	if r.code != 0 || !strings.Contains(r.stdout, words) {
		d.t.Errorf("wanted success and %q in the output: %v", words, r)
	}
}

// serve starts a server in a container that says "listening" when it is ready.
func (d *daemon) serve(name string, flags []string, command ...string) {
	d.t.Helper()
	d.container(name, flags, command...)
	d.logged(name, "listening")
}

// logged waits until a container's output has words in it, and returns the output.
func (d *daemon) logged(name, words string) string {
	d.t.Helper()
	var out string
	eventually(d.t, func() error {
		r := d.try("logs", name)
		out = r.stdout + r.stderr
		if !strings.Contains(out, words) {
			return fmt.Errorf("the output of %s lacks %q: %v", name, words, r)
		}
		return nil
	})
	return out
}

// address is the IPv4 address of a container's eth0.
func (d *daemon) address(name string) string {
	d.t.Helper()
	return d.field(`inet ([0-9.]+)/`, name, "ip", "-4", "addr", "show", "eth0")
}

// address6 is the global IPv6 address of a container's eth0.
func (d *daemon) address6(name string) string {
	d.t.Helper()
	return d.field(`inet6 ([0-9a-f:]+)/`, name, "ip", "-6", "addr", "show", "eth0", "scope", "global")
}

// mac is the hardware address of a container's eth0.
func (d *daemon) mac(name string) string {
	d.t.Helper()
	return d.field(`link/ether ([0-9a-f:]+)`, name, "ip", "link", "show", "eth0")
}

// gateway is a container's IPv4 default gateway.
func (d *daemon) gateway(name string) string {
	d.t.Helper()
	return d.field(`default via ([0-9.]+)`, name, "ip", "route")
}

// field runs a command in a container and returns what the pattern's group matches.
func (d *daemon) field(pattern, name string, command ...string) string {
	d.t.Helper()
	r := d.exec(name, command...)
	match := regexp.MustCompile(pattern).FindStringSubmatch(r.stdout)
	if match == nil {
		d.t.Fatalf("no %q: %v", pattern, r)
	}
	return match[1]
}

// pid is the process id of a container's first process.
func (d *daemon) pid(name string) int {
	d.t.Helper()
	out := d.ok("inspect", "--type", "container", "-f", "{{.State.Pid}}", name)
	pid, err := strconv.Atoi(out)
	if err != nil || pid <= 0 {
		d.t.Fatalf("the pid of %s is %q", name, out)
	}
	return pid
}

// names are those that a command lists.
func (d *daemon) names(args ...string) (list []string) {
	d.t.Helper()
	r := json.NewDecoder(strings.NewReader(d.ok(append(args, "--format", "json")...)))
	for {
		var one struct{ Name, Names string }
		err := r.Decode(&one)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			d.t.Fatal(err)
		}
		list = append(list, cmp.Or(one.Name, one.Names))
	}
}

// eventually calls check until it returns nil, and fails the test with its last error when that takes
// longer than patience.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // between two looks; nothing depends on its length
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fileHas is for eventually.
func fileHas(path, words string) error {
	text, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(text), words) {
		err = fmt.Errorf("%s lacks %q: %s", path, words, text)
	}
	return err
}
