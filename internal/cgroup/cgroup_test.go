package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeMachine is a directory that looks like a cgroup file system, with the daemon in the cgroup at path.
func fakeMachine(t *testing.T, path string) machine {
	t.Helper()
	mount := t.TempDir()
	setUnified(t, true)
	m := machine{
		self:    "0::" + path + "\n",
		mount:   mount,
		marked:  func(string) bool { return true },
		write:   writeFile,
		allowed: func(path string) bool { _, err := os.Stat(path); return err == nil },
	}
	m.mkdir = func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		for name, text := range map[string]string{
			"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.controllers": "cpuset cpu io memory pids\n",
			"cgroup.kill": "", "memory.max": "max\n", "memory.swap.max": "max\n", "cpu.max": "max 100000\n",
			"pids.max": "max\n", "cgroup.max.depth": "max\n", "cgroup.max.descendants": "max\n",
			"memory.current": "4096\n", "memory.stat": "anon 1024\ninactive_file 512\n",
			"memory.events": "low 0\noom 3\noom_kill 2\n", "pids.current": "5\n",
			"cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 7\n",
		} {
			if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
	dir := mount
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if part == "" {
			continue
		}
		dir = filepath.Join(dir, part)
		if err := m.mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func setUnified(t *testing.T, is bool) {
	if is {
		setFS(t, func(string) int64 { return unix.CGROUP2_SUPER_MAGIC })
		return
	}
	setFS(t, func(string) int64 { return unix.TMPFS_MAGIC })
}

// setFS says what file system each path is in.
func setFS(t *testing.T, of func(path string) int64) {
	old := fsType
	t.Cleanup(func() { fsType = old })
	fsType = of
}

// has says what a file of a cgroup holds.
func has(t *testing.T, want string, path ...string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(path...)); err != nil || string(b) != want {
		t.Errorf("%s: %q, %v, want %q", filepath.Join(path...), b, err, want)
	}
}

func TestTakeMovesTheDaemonToASubgroup(t *testing.T) {
	m := fakeMachine(t, "/usernet")
	enabled := ""
	m.write = func(path, text string) error {
		if filepath.Base(path) == "cgroup.subtree_control" {
			enabled += text
		}
		return writeFile(path, text)
	}
	tree, err := take(m)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(m.mount, "usernet")
	if tree.Root() != root || strings.Join(tree.Controllers(), " ") != "memory cpu pids" ||
		enabled != "+memory+cpu+pids" {
		t.Errorf("%s, %v, enabled %s", tree.Root(), tree.Controllers(), enabled)
	}
	has(t, fmt.Sprint(os.Getpid()), root, daemonName, "cgroup.procs")

	m.self = "0::/usernet/daemon\n" // its successor, which is started there
	if again, err := take(m); err != nil || again.Root() != root {
		t.Errorf("%v, %v", again, err)
	}
}

// TestTakeSaysWhatIsMissing has a machine lack one thing after the other.
func TestTakeSaysWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		name, path string
		change     func(*machine)
		want       string
	}{
		{"version 1", "/memory", func(m *machine) {
			fsType = func(path string) int64 {
				if path == filepath.Join(m.mount, "memory") {
					return unix.CGROUP_SUPER_MAGIC
				}
				return unix.TMPFS_MAGIC
			}
		}, "cgroups of version 1"},
		{"version 1, all controllers together", "/x", func(*machine) {
			fsType = func(string) int64 { return unix.CGROUP_SUPER_MAGIC }
		}, "cgroups of version 1"},
		{"no cgroups", "/x", func(*machine) { fsType = func(string) int64 { return unix.SYSFS_MAGIC } },
			"no cgroups are mounted at"},
		{"no directory for them", "", func(m *machine) { m.mount += "/none"; fsType = func(string) int64 { return 0 } },
			"no cgroups are mounted at"},
		{"hybrid", "/x", func(m *machine) { m.self = "4:memory:/x\n" }, "is not in"},
		{"of another namespace", "/x", func(m *machine) { m.self = "0::/../x\n" }, "is not in"},
		{"a login", "/user.slice/session-1.scope", func(m *machine) { m.allowed = func(string) bool { return false } },
			"was not delegated to this user"},
		{"a scope of a desktop's", "/app.slice/vte.scope",
			func(m *machine) { m.marked = func(string) bool { return false } },
			"systemd's, which has not delegated it"},
		{"an old systemd", "/app.slice/usernet.service", func(*machine) {}, "DelegateSubgroup=daemon"},
		{"no controllers", "/x", func(m *machine) {
			_ = os.WriteFile(filepath.Join(m.mount, "x/cgroup.controllers"), []byte("cpuset io\n"), 0o644)
		}, "none of the controllers"},
		{"other processes", "/x", func(m *machine) {
			m.write = func(path, text string) error {
				if filepath.Base(path) == "cgroup.subtree_control" {
					return unix.EBUSY
				}
				return writeFile(path, text)
			}
		}, "has other processes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := fakeMachine(t, test.path)
			test.change(&m)
			_, err := take(m)
			if u := new(Unavailable); !errors.As(err, &u) || !strings.Contains(err.Error(), test.want) || u.Fix == "" {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	for _, path := range []string{"/app.slice/usernet.service/daemon", "/app.slice/run-1.scope", "/"} {
		m := fakeMachine(t, path)
		if strings.HasSuffix(path, daemonName) { // a user's manager sets no mark
			m.marked = func(string) bool { return false }
		}
		if path == "/" {
			m.mount = filepath.Join(m.mount, "container")
			if err := m.mkdir(m.mount); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := take(m); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestLimitsAreWrittenAboveTheContainersOwnCgroup(t *testing.T) {
	tree, err := take(fakeMachine(t, "/usernet"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.Make("0123", Limits{Memory: 64 << 20, NanoCPUs: 500_000_000, Pids: 20})
	if err != nil {
		t.Fatal(err)
	}
	has(t, "67108864", g.Dir(), "memory.max")
	has(t, "0", g.Dir(), "memory.swap.max")
	has(t, "50000 100000", g.Dir(), "cpu.max")
	has(t, "20", g.Dir(), "pids.max")
	has(t, "max\n", g.Inside(), "memory.max")
	has(t, "32", g.Dir(), "cgroup.max.depth")
	has(t, "4096", g.Dir(), "cgroup.max.descendants")
	for _, test := range []struct {
		limits       Limits
		file, wanted string
	}{
		{Limits{}, "memory.max", "max"},
		{Limits{}, "cpu.max", "max 100000"},
		{Limits{NanoCPUs: 1}, "cpu.max", "1000 100000"},
		{Limits{NanoCPUs: 2_500_000_000}, "cpu.max", "250000 100000"},
		{Limits{Memory: 1 << 20, Swap: 2 << 20}, "memory.swap.max", "2097152"},
		{Limits{Memory: 1 << 20, Swap: -1}, "memory.swap.max", "max"},
		{Limits{Pids: -1}, "pids.max", "max"},
	} {
		if err := g.Set(test.limits); err != nil {
			t.Fatal(err)
		}
		has(t, test.wanted, g.Dir(), test.file)
	}
	if err := os.Remove(filepath.Join(g.Dir(), "memory.max")); err != nil {
		t.Fatal(err)
	}
	if err := g.Set(Limits{Pids: 5}); err != nil {
		t.Errorf("a controller that is missing and not needed: %v", err)
	}
	if err := g.Set(Limits{Memory: 1 << 20}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a controller that is missing: %v", err)
	}
	tree.controllers = []string{Pids}
	if got := tree.Missing(Limits{Memory: 1, NanoCPUs: 1, Pids: 1}); strings.Join(got, " ") != "memory cpu" {
		t.Errorf("missing: %v", got)
	}
}

func TestUsage(t *testing.T) {
	tree, err := take(fakeMachine(t, "/usernet"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := tree.Make("0123", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := Open(made.Dir()) // as the next daemon does
	if err != nil {
		t.Fatal(err)
	}
	u, err := g.Usage()
	if err != nil || u.Memory != 4096 || u.MemoryLimit != 0 || u.MemoryStat["inactive_file"] != 512 || u.Pids != 5 ||
		u.User != 20*time.Microsecond || u.System != 10*time.Microsecond || u.OOMKills != 2 || u.Throttled != 3 {
		t.Errorf("%+v, %v", u, err)
	}
	if n, err := g.OOMKills(); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, dir := range []string{
		tree.Root(), "/", "/etc", filepath.Join(tree.Root(), "container-1"), "container-0123",
	} {
		if _, err := Open(dir); err == nil {
			t.Errorf("%s was taken for a container's", dir)
		}
	}
	setUnified(t, false)
	if _, err := Open(made.Dir()); err == nil {
		t.Error("a directory was taken for a cgroup")
	}
}

// TestRemove has files go with their directory, as in the kernel's file system.
func TestRemove(t *testing.T) {
	m := fakeMachine(t, "/usernet")
	tree, err := take(m)
	if err != nil {
		t.Fatal(err)
	}
	tree.mkdir = func(path string) error { return os.Mkdir(path, 0o755) }
	for _, id := range []string{"a", "b"} {
		for _, dir := range []string{"", "/inside", "/inside/made"} {
			if err := tree.mkdir(filepath.Join(tree.Root(), "container-"+id+dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The container makes some whose path is longer than a path can be.
	at := filepath.Join(tree.Root(), "container-a/inside")
	name := strings.Repeat("x", 255)
	for range maxDepth {
		fd, err := unix.Open(at, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		at = fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	}
	if err := tree.Sweep(context.Background(), func(id string) bool { return id == "b" }); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(tree.Root(), "container-*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "container-b" {
		t.Errorf("left: %v, %v", left, err)
	}
	g, err := Open(left[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := os.WriteFile(filepath.Join(g.Dir(), "stays"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(ctx); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("what cannot be removed: %v", err)
	}
}
