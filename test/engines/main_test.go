package engines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for something that happens at once on a machine with nothing else to do.
const patience = 60 * time.Second

// Set in TestMain for all tests.
var (
	slirp4netns  string // what is called in slirp4netns's place
	pasta        string // in pasta's
	rootlessport string // in that of Podman's program
	usernet      string
	helper       string // the end-to-end tests' client and server, for what no stock program does
	image        string // archive of a root file system: busybox under the names of its applets
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Getenv("USERNET_ENGINES") != "1" {
		fmt.Println("engines: the world that these tests need is made by `make engines`, as root; nothing was run")
		return 0, nil
	}
	if os.Getenv(reapedVariable) == "" {
		return reap()
	}
	dir, err := os.MkdirTemp("/tmp", "usernet-engines-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return 1, err
	}
	if image, err = makeImage(dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build makes usernet and links it under the names of the programs whose places it takes.
func build(dir string) error {
	usernet = filepath.Join(dir, "usernet")
	cmd := exec.Command("scripts/build.sh", usernet)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("scripts/build.sh: %w\n%s", err, out)
	}
	for name, place := range map[string]*string{"slirp4netns": &slirp4netns, "pasta": &pasta,
		"rootlessport": &rootlessport} {
		if other := os.Getenv("USERNET_ENGINES_" + strings.ToUpper(name)); other != "" {
			*place = other
			continue
		}
		*place = filepath.Join(dir, name)
		if err := os.Symlink(usernet, *place); err != nil {
			return err
		}
	}
	return nil
}

// makeImage archives a root file system of busybox and the end-to-end tests' helper. No registry can be reached, and
// none is needed.
func makeImage(dir string) (string, error) {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "tmp", "var/www"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return "", err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", errors.New("busybox is missing; as root: apt-get install busybox-static")
	}
	if err := copyFile(busybox, filepath.Join(root, "bin/busybox")); err != nil {
		return "", err
	}
	for _, applet := range []string{"sh", "httpd", "wget", "cat", "ip", "ping", "nslookup", "sleep", "nc", "id", "echo",
		"true", "grep", "udhcpc"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return "", err
		}
	}
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/:/bin/sh\n",
		"var/www/index.html": "container\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	helper = filepath.Join(dir, "helper")
	build := exec.Command("go", "build", "-o", helper, "../helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("test/helper: %w\n%s", err, out)
	}
	if err := copyFile(helper, filepath.Join(root, "bin/helper")); err != nil {
		return "", err
	}
	archive := filepath.Join(dir, "image.tar")
	if out, err := exec.Command("tar", "-C", root, "-cf", archive, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w\n%s", err, out)
	}
	return archive, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// A user is a private home and runtime directory for one engine.
type user struct {
	t       testing.TB
	dir     string
	environ []string
}

func newUser(t testing.TB) *user {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ue-") // short: a socket's path has 108 bytes at most (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, dir: dir, environ: []string{
		"HOME=" + filepath.Join(dir, "home"), "XDG_RUNTIME_DIR=" + filepath.Join(dir, "run"),
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C",
	}}
	for _, d := range []string{"home", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	users++
	t.Cleanup(func() {
		// Layers belong to the user's sub-uids. Podman would leave a process that keeps its namespace.
		_ = exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf", dir).Run()
		_ = os.RemoveAll(dir)
		if users--; users == 0 {
			nothingLeft(t)
		}
	})
	return u
}

// result is what a command did.
type result struct {
	args           []string
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("%s\nexit status %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.stdout,
		r.stderr)
}

// try runs a command as the user.
func (u *user) try(name string, args ...string) result {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr strings.Builder
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = u.environ, u.dir, &stdout, &stderr
	// what stays in the background must not hold our pipes; if it does, the test sees it
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	r := result{args: append([]string{name}, args...), stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		u.t.Fatalf("no end after three minutes: %v", r)
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		u.t.Fatalf("%v: %v", r, err)
	}
	return r
}

// ok runs a command, which has to succeed, and returns its output without the final newline.
func (u *user) ok(name string, args ...string) string {
	u.t.Helper()
	r := u.try(name, args...)
	if r.code != 0 {
		u.t.Fatalf("failed: %v", r)
	}
	return strings.TrimSpace(r.stdout)
}

// eventually repeats what returns an error until it does not.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
