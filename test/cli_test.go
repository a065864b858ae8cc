package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// home is a place for commands without --host: a runtime directory and a state of their own, and no daemon.
type home struct {
	*daemon
	env []string
}

func newHome(t *testing.T) *home {
	d := newDaemon(t)
	var env []string
	for _, v := range d.environ() {
		if !strings.HasPrefix(v, "USERNET_HOST=") {
			env = append(env, v)
		}
	}
	h := &home{d, env}
	d.socket = filepath.Join(d.dir, "run", "usernet", "usernet.sock")
	t.Cleanup(func() { h.run(nil, "shutdown") }) // where one was started
	return h
}

// run runs usernet with more variables in its environment.
func (h *home) run(env []string, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, usernet, args...)
	cmd.Env = append(append([]string{}, h.env...), env...)
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	if ctx.Err() != nil {
		h.t.Fatalf("no end after two minutes: %v", args)
	}
	return result{args: args, stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// TestBackgroundDaemon has commands start a daemon, find it with another runtime directory, and end it.
func TestBackgroundDaemon(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	if r := h.run(nil, "run", "-d", "--name", "c1", "--", "sleep", "1000000"); r.code != 0 {
		t.Fatal(r)
	}
	var info struct {
		Pid              int
		Socket, StateDir string
		Running          int
	}
	r := h.run(nil, "info", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &info); err != nil || info.Pid <= 0 || info.Running != 1 {
		t.Fatalf("%v: %v", err, r)
	}
	other := filepath.Join(h.dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := h.run([]string{"XDG_RUNTIME_DIR=" + other}, "ps", "--format", "{{.Names}}"); r.stdout != "c1\n" {
		t.Errorf("with another runtime directory the daemon of the state is not found: %v", r)
	}
	if r := h.run([]string{"XDG_RUNTIME_DIR=" + other}, "run", "--rm", "--", "true"); r.code != 0 {
		t.Errorf("%v", r)
	}
	if r := h.run(nil, "shutdown"); r.code != 0 {
		t.Errorf("%v", r)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", info.Pid)); err == nil && !strings.Contains(string(stat),
		") Z ") {
		t.Errorf("process %d lives behind `shutdown`: %s", info.Pid, stat)
	}
	if r := h.run(nil, "ps"); r.code == 0 || !strings.Contains(r.stderr, "no usernet daemon answers") {
		t.Errorf("%v", r)
	}
	if r := h.run(nil, "network", "create", "mynet"); r.code != 0 {
		t.Fatal(r)
	}
	log := readFile(t, filepath.Join(info.StateDir, "daemon.log"))
	if n := strings.Count(log, "usernet is listening"); n != 2 {
		t.Errorf("the log of the first daemon is lost: %d starts in\n%s", n, log)
	}
	if r := h.run(nil, "rm", "-f", "c1"); r.code != 0 {
		t.Error(r)
	}
}

// TestFailedAutomaticStartIsToldAtOnce damages what the daemon needs.
func TestFailedAutomaticStartIsToldAtOnce(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	state := filepath.Join(h.dir, "home", "usernet")
	// a directory where the store is to be
	if err := os.MkdirAll(filepath.Join(state, "usernet.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r := h.run(nil, "run", "--rm", "--", "true")
	if r.code != 125 || !strings.Contains(r.stderr, "the daemon did not start") ||
		!strings.Contains(r.stderr, "usernet.db") || strings.Count(r.stderr, "See: usernet explain ") != 1 {
		t.Errorf("%v", r)
	}
	t.Logf("told after %s", time.Since(start)) // 10 s once; a busy machine says nothing
	if err := os.RemoveAll(filepath.Join(state, "usernet.db")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.dir, "config.toml")
	if err := os.WriteFile(config, []byte("[serve]\nx = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := h.env
	h.env = append(slices.Clip(plain), "USERNET_CONFIG="+config)
	if r := h.run(nil, "run", "--rm", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, config+":2:1: ") ||
		!strings.HasSuffix(strings.TrimSpace(r.stderr), "\nSee: usernet explain the-configuration-is-wrong") {
		t.Errorf("with a wrong configuration: %v", r)
	}
	h.env = plain
	var env []string
	for _, v := range h.env {
		if !strings.HasPrefix(v, "HOME=") && !strings.HasPrefix(v, "XDG_STATE_HOME=") {
			env = append(env, v)
		}
	}
	h.env = env
	if r := h.run(nil, "network", "create", "mynet"); r.code != 0 && !strings.Contains(r.stderr, "Set XDG_STATE_HOME") {
		t.Errorf("without HOME: %v", r)
	}
}

// TestUsernetInUsernetSaysWhatItNeeds runs commands in containers, where the caller's socket and state are hidden or,
// with --share-api, another pid namespace's.
func TestUsernetInUsernetSaysWhatItNeeds(t *testing.T) {
	h := newHome(t)
	for _, test := range []struct {
		words string
		args  []string
	}{
		{"no usernet daemon answers", []string{"run", "--rm", "--", usernet, "ps"}},
		{"set XDG_STATE_HOME and XDG_RUNTIME_DIR to directories of the container's own", []string{"run", "--rm", "--", usernet, "run", "--rm", "--", "true"}},
		{"set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories of the container's own", []string{"run", "--rm", "--security-opt", "seccomp=unconfined", "--share-api", "--", usernet, "run", "--rm", "--", "true"}},
		{"cannot be used: ", []string{"run", "--rm", "--", usernet, "serve"}},
	} {
		if r := h.run(nil, test.args...); r.code == 0 || !strings.Contains(r.stderr, test.words) {
			t.Errorf("wanted %q: %v", test.words, r)
		}
	}
	own := filepath.Join(h.dir, "own")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	inner := fmt.Sprintf("export XDG_RUNTIME_DIR=%s XDG_STATE_HOME=%s; %s run --rm -- echo inner; %s shutdown", own, own, usernet, usernet)
	if r := h.run(nil, "run", "--rm", "--security-opt", "seccomp=unconfined", "--", "sh", "-c", inner); r.code != 0 ||
		r.stdout != "inner\n" {
		t.Errorf("with directories of its own: %v", r)
	}
}

func TestLogsOfAnAttachedRun(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	r := d.try("run", "--name", "c1", "--", "sh", "-c", "echo out; echo bad >&2; printf part")
	if r.code != 0 || r.stdout != "out\npart" || r.stderr != "bad\n" {
		t.Errorf("%v", r)
	}
	if r := d.try("logs", "c1"); r.stdout != "out\npart" || r.stderr != "bad\n" {
		t.Errorf("logs: %v", r)
	}
	if r := d.command("sh", "-c", usernet+" run --name c2 -- sh -c 'yes; echo status $? >&2' | head -n1"); r.stdout != "y\n" {
		t.Errorf("a reader that goes: %v", r)
	}
	out := d.ok("logs", "--timestamps", "c1")
	if !strings.Contains(out, "Z out") {
		t.Errorf("%q", out)
	}
}

func TestSmallThingsOfTheCommandLine(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("c1")
	if out := d.ok("exec", "c1", "--", "echo", "--", "x"); out != "-- x" {
		t.Errorf("%q", out)
	}
	if r := d.try("rm", "-f", "nope"); r.code != 0 || !strings.Contains(r.stderr, "No such container: nope") ||
		r.stdout != "" {
		t.Errorf("%v", r)
	}
	d.fails("it needs two characters at least", "run", "--name", "a", "--", "true")
	d.fails("there are no images", "pull", "busybox")
	d.fails("give a whole number", "ps", "-n", "x")
	f := startForeign(d)
	d.ok("attach", "--pid", fmt.Sprint(f.pid), "--name", "ext")
	d.fails("it is attached and running", "rm", "ext")
	if r := d.try("rm", "-f", "ext"); r.code != 0 {
		t.Errorf("%v", r)
	}
	if out := d.ok("network", "inspect", "--verbose", "bridge"); !strings.Contains(out, `"MAC": "`+d.mac("c1")+`"`) {
		t.Errorf("no MAC address as text in %s", out)
	}
	var checks []struct {
		Name string
		OK   bool
	}
	if err := json.Unmarshal([]byte(d.try("check", "--json").stdout), &checks); err != nil || len(checks) < 3 {
		t.Errorf("%v %v", err, checks)
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(d.ok("version", "--json")), &v); err != nil || v["docker_api"] == "" {
		t.Errorf("%v %v", err, v)
	}
}

// TestInstall installs the binary of these tests as `make install` does, and looks at what is there.
func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree, to := filepath.Join(dir, "tree"), filepath.Join(dir, "a b&c") // a prefix that shells and sed could take apart
	script := `set -e
mkdir -p "$1/bin" && cp -r ../Makefile ../scripts ../dist "$1" && cp "$3" "$1/bin/usernet" && cd "$1"
bin/usernet man man && PREFIX="$2" DESTDIR= scripts/install.sh`
	cmd := exec.Command("sh", "-c", script, "sh", tree, to, usernet)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, words := range map[string]string{
		"bin/usernet":                                  "",
		"share/man/man1/usernet-run.1":                 ".SH SYNOPSIS",
		"share/man/man1/usernet-network-create.1":      ".SH OPTIONS",
		"share/bash-completion/completions/usernet":    "__complete",
		"share/zsh/site-functions/_usernet":            "#compdef usernet",
		"share/fish/vendor_completions.d/usernet.fish": "__complete",
		"share/systemd/user/usernet.service":           "ExecStart=\"" + to + "/bin/usernet\" serve\n",
		"share/systemd/user/usernet.socket":            "ListenStream=%t/usernet/usernet.sock",
	} {
		if text := readFile(t, filepath.Join(to, path)); !strings.Contains(text, words) {
			t.Errorf("%s lacks %q", path, words)
		}
	}
}
