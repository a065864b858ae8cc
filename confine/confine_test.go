package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// roleVariable has the test binary confine itself with the measures in it, try what a daemon must and must not be able
// to do, and print how that went.
const roleVariable = "USERNET_CONFINE"

func TestMain(m *testing.M) {
	if list, ok := os.LookupEnv(roleVariable); ok {
		attempt(strings.Split(list, ","))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// outcome is what a confined process found.
type outcome struct {
	InForce  []Measure
	Warnings []string
	Failed   map[string]string // attempts that failed, with the error
	Threads  []string          // lines of /proc/self/task/*/status about confinement, each different one once
}

func attempt(names []string) {
	dir := os.Getenv("USERNET_CONFINE_DIR")
	list, err := Parse(names)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// Threads that exist before have to be confined as well.
	hold, ready := make(chan struct{}), new(sync.WaitGroup)
	for range 4 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			<-hold
		}()
	}
	ready.Wait()
	profile := Daemon
	if os.Getenv("USERNET_CONFINE_PROFILE") == "helper" {
		profile = Helper
	}
	inForce, warnings := profile.With(list).Apply(Paths{
		Write: []string{filepath.Join(dir, "state")}, Read: []string{"/proc", "/etc", filepath.Join(dir, "missing")},
		Modify: []string{filepath.Join(dir, "settings")}, Devices: []string{"/dev/net/tun"},
		Sockets: []string{filepath.Join(dir, "run")},
	})
	o := outcome{InForce: inForce, Failed: map[string]string{}}
	for _, w := range warnings {
		o.Warnings = append(o.Warnings, w.Error())
	}
	for name, try := range attempts {
		if err := try(dir); err != nil {
			o.Failed[name] = err.Error()
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread ended meanwhile
		}
		var lines []string
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "NoNewPrivs:") || strings.HasPrefix(line, "Seccomp:") {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
		}
		if all := strings.Join(lines, ", "); !slices.Contains(o.Threads, all) {
			o.Threads = append(o.Threads, all)
		}
	}
	close(hold)
	_ = json.NewEncoder(os.Stdout).Encode(o)
}

// attempts are what a daemon does, and what an attacker in it would.
var attempts = map[string]func(dir string) error{
	"write state": func(dir string) error {
		path := filepath.Join(dir, "state", "sub", "file")
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600),
			os.Rename(path, path+"2"), os.RemoveAll(filepath.Dir(path)))
	},
	"read /etc":  func(string) error { _, err := os.ReadFile("/etc/passwd"); return err },
	"read /proc": func(string) error { _, err := os.ReadFile("/proc/1/stat"); return err },
	"connect": func(string) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = c.Close()
		}
		return err
	},
	"start a thread": func(string) error {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread() // and ends with it
			close(done)
		}()
		<-done
		return nil
	},
	"listen on a unix socket": func(dir string) error {
		l, err := net.Listen("unix", filepath.Join(dir, "state", "s"))
		if err == nil {
			err = l.Close()
		}
		return err
	},

	"change a setting": func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "settings", "one"), []byte("1"), 0o600)
	},
	"add a setting": func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "settings", "two"), []byte("1"), 0o600)
	},

	"make and remove a socket": func(dir string) error {
		l, err := net.Listen("unix", filepath.Join(dir, "run", "s"))
		if err == nil {
			err = l.Close()
		}
		return err
	},
	"write beside a socket": func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "run", "jobs", "new"), nil, 0o600)
	},
	"change what is beside a socket": func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "run", "jobs", "job"), nil, 0o600)
	},
	"move state beside a socket": func(dir string) error {
		path := filepath.Join(dir, "state", "file")
		return errors.Join(os.WriteFile(path, nil, 0o600), os.Rename(path, filepath.Join(dir, "run", "jobs", "job")))
	},
	"link beside a socket": func(dir string) error {
		return os.Symlink("/", filepath.Join(dir, "run", "jobs", "link"))
	},

	"read a secret":   func(dir string) error { _, err := os.ReadFile(filepath.Join(dir, "secret")); return err },
	"write elsewhere": func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) },
	"list elsewhere":  func(dir string) error { _, err := os.ReadDir(dir); return err },
	"run a program":   func(string) error { return exec.Command("/bin/true").Run() },
	"make a namespace": func(string) error {
		runtime.LockOSThread()
		return unix.Unshare(unix.CLONE_NEWUTS)
	},
	"capture packets": func(string) error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err },
	"trace":           func(string) error { return unix.PtraceSeize(os.Getppid()) },
	"read memory": func(string) error {
		f, err := os.Open(fmt.Sprintf("/proc/%d/mem", os.Getppid()))
		if err == nil {
			err = f.Close()
		}
		return err
	},
}

// permitted are the attempts that have to succeed whatever the measures.
var permitted = []string{"write state", "read /etc", "read /proc", "connect", "start a thread",
	"listen on a unix socket", "make and remove a socket"}

func confined(t *testing.T, measures string, profile ...string) outcome {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600),
		os.Mkdir(filepath.Join(dir, "settings"), 0o700),
		os.MkdirAll(filepath.Join(dir, "run", "jobs"), 0o700),
		os.WriteFile(filepath.Join(dir, "run", "jobs", "job"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "settings", "one"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+measures, "USERNET_CONFINE_DIR="+dir,
		"USERNET_CONFINE_PROFILE="+strings.Join(profile, ""))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var o outcome
	if err := json.Unmarshal(out, &o); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range permitted {
		if e, failed := o.Failed[name]; failed {
			t.Errorf("%s: %s: %s", measures, name, e)
		}
	}
	return o
}

func TestForbiddenThingsFail(t *testing.T) {
	for _, test := range []struct {
		measures string
		forbids  []string
		status   string
	}{
		{"no-new-privileges", nil, "NoNewPrivs: 1, Seccomp: 0"},
		{"landlock", []string{"read a secret", "write elsewhere", "list elsewhere", "read memory", "trace",
			"run a program", "write beside a socket", "change what is beside a socket", "move state beside a socket",
			"link beside a socket"}, "NoNewPrivs: 1, Seccomp: 0"},
		{"seccomp", []string{"run a program", "make a namespace", "capture packets", "trace"},
			"NoNewPrivs: 1, Seccomp: 2"},
		{strings.Join(Names(All), ","), []string{
			"read a secret", "write elsewhere", "list elsewhere", "read memory", "run a program", "make a namespace",
			"capture packets", "trace",
		}, "NoNewPrivs: 1, Seccomp: 2"},
	} {
		t.Run(test.measures, func(t *testing.T) {
			o := confined(t, test.measures)
			if len(o.Warnings) > 0 {
				t.Fatalf("this kernel lacks something: %v", o.Warnings)
			}
			for _, name := range test.forbids {
				if o.Failed[name] == "" {
					t.Errorf("%s: succeeded", name)
				}
			}
			if len(o.Threads) != 1 || o.Threads[0] != test.status {
				t.Errorf("threads have %q, wanted %q", o.Threads, test.status)
			}
		})
	}
}

// TestHelperMayStartAgentsOnly is what the helper and the agents that inherit its profile can do.
func TestHelperMayStartAgentsOnly(t *testing.T) {
	o := confined(t, strings.Join(Names(All), ","), "helper")
	for _, name := range []string{
		"read a secret", "write elsewhere", "list elsewhere", "run a program", "make a namespace", "read memory",
		"trace", "add a setting",
	} {
		if o.Failed[name] == "" {
			t.Errorf("%s: succeeded", name)
		}
	}
	for _, name := range []string{"change a setting"} {
		if e, failed := o.Failed[name]; failed {
			t.Errorf("%s: %s", name, e)
		}
	}
}

func TestOffLeavesEverything(t *testing.T) {
	o := confined(t, "off")
	for _, name := range []string{"read a secret", "write elsewhere", "list elsewhere", "run a program"} {
		if e, failed := o.Failed[name]; failed {
			t.Errorf("%s: %s", name, e)
		}
	}
	if len(o.InForce) != 0 {
		t.Errorf("in force: %v", o.InForce)
	}
}

func TestParse(t *testing.T) {
	if list, err := Parse([]string{"seccomp", "landlock"}); err != nil || !slices.Equal(list, []Measure{Seccomp,
		Landlock}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range [][]string{{"everything"}, {"off", "seccomp"}, {""}} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestFilterTreatsEveryNumberAsListed runs the filter as the kernel would.
func TestFilterTreatsEveryNumberAsListed(t *testing.T) {
	for _, p := range []Profile{Daemon, Helper, Opener} {
		t.Run(p.name, func(t *testing.T) { testFilter(t, p) })
	}
}

func testFilter(t *testing.T, p Profile) {
	raw, err := p.seccompProgram()
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("instructions that are none")
	}
	run := func(arch, number, arg uint32) uint32 {
		acc := uint32(0)
		for pc := 0; ; pc++ {
			switch i := program[pc].(type) {
			case bpf.LoadAbsolute:
				acc = map[uint32]uint32{offNumber: number, offArch: arch, offArg0: arg, offArg2: arg}[i.Off]
			case bpf.JumpIf:
				hit := map[bpf.JumpTest]bool{bpf.JumpEqual: acc == i.Val, bpf.JumpNotEqual: acc != i.Val,
					bpf.JumpBitsSet: acc&i.Val != 0, bpf.JumpBitsNotSet: acc&i.Val == 0}[i.Cond]
				if hit {
					pc += int(i.SkipTrue)
				} else {
					pc += int(i.SkipFalse)
				}
			case bpf.RetConstant:
				return i.Val
			default:
				t.Fatalf("instruction %d: %v", pc, i)
			}
		}
	}
	eperm := unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for n := range uint32(600) {
		want := eperm
		switch {
		case slices.Contains(p.allowed(), n) || p.readOnly && n == unix.SYS_OPENAT:
			want = unix.SECCOMP_RET_ALLOW
		case n == unix.SYS_CLONE && p.children:
			want = unix.SECCOMP_RET_ALLOW
		case n == unix.SYS_CLONE3:
			want = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		}
		if got := run(auditArch, n, 0); got != want {
			t.Errorf("system call %d: %#x, wanted %#x", n, got, want)
		}
		if got := run(auditArch^1, n, 0); got != eperm {
			t.Errorf("system call %d of another architecture: %#x", n, got)
		}
	}
	process := eperm
	if p.children {
		process = unix.SECCOMP_RET_ALLOW
	}
	for arg, want := range map[uint32]uint32{
		unix.CLONE_THREAD | unix.CLONE_VM: unix.SECCOMP_RET_ALLOW, unix.CLONE_VM: process, unix.CLONE_NEWUSER: eperm,
		unix.CLONE_NEWNET | unix.CLONE_VM: eperm,
	} {
		if got := run(auditArch, unix.SYS_CLONE, arg); got != want {
			t.Errorf("clone with %#x: %#x", arg, got)
		}
	}
	if p.readOnly {
		for flags, want := range map[uint32]uint32{
			unix.O_RDONLY | unix.O_CLOEXEC: unix.SECCOMP_RET_ALLOW,
			unix.O_PATH | unix.O_DIRECTORY: unix.SECCOMP_RET_ALLOW,
			unix.O_WRONLY:                  eperm, unix.O_RDWR: eperm, unix.O_CREAT: eperm, unix.O_TRUNC: eperm,
			unix.O_TMPFILE: eperm,
		} {
			if got := run(auditArch, unix.SYS_OPENAT, flags); got != want {
				t.Errorf("openat with %#x: %#x", flags, got)
			}
		}
	}
	for family := range uint32(64) {
		want := eperm
		if slices.Contains(p.families, family) {
			want = unix.SECCOMP_RET_ALLOW
		}
		if got := run(auditArch, unix.SYS_SOCKET, family); got != want {
			t.Errorf("socket of family %d: %#x", family, got)
		}
	}
}

func TestMissingPathsAreLeftOut(t *testing.T) {
	if o := confined(t, "landlock"); !slices.Equal(o.InForce, []Measure{NoNewPrivileges, Landlock}) {
		t.Errorf("in force: %v", o.InForce)
	}
}
