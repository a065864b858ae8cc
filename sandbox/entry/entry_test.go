package entry

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// playVariable has the test binary say how it came into being: whether it is dumpable, and what Result says.
const playVariable = "USERNET_ENTRY_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(playVariable) == "" {
		os.Exit(m.Run())
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		os.Exit(3)
	}
	text := "dumpable"
	if dumpable == 0 {
		text = "not dumpable"
	}
	if err := Result(); err != nil {
		text += ", " + err.Error()
	}
	_, _ = os.Stdout.WriteString(text)
	os.Exit(0)
}

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) Write(b []byte) (int, error) {
	m.b = append(m.b, b...)
	return len(b), nil
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) { return copy(m.b[at:], b), nil }

// patched is a copy of a program.
func patched(image []byte) ([]byte, error) {
	var m memory
	err := Copy(&m, bytes.NewReader(image))
	return m.b, err
}

// self is the program of this test, with the stage as its entry point.
func self(t *testing.T) string {
	t.Helper()
	image, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if image, err = patched(image); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, image, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStageTakesItsSteps(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("there is no stage for this architecture")
	}
	path := self(t)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"without arguments", nil, "not dumpable"},
		{"one argument", []string{"role"}, "not dumpable"},
		{"no namespaces", []string{"role", Steps{}.Argument()}, "not dumpable"},
		{"arguments of something else", []string{"role", "--flag"}, "not dumpable"},
		{"a descriptor that is closed", []string{"role", Steps{Namespaces: 1}.Argument()},
			"not dumpable, namespaces cannot be entered: " + syscall.EBADF.Error()},
		{"a child that cannot be made", []string{"role", Steps{CloneFlags: unix.CLONE_THREAD}.Argument()},
			"not dumpable, namespaces cannot be entered: " + syscall.EINVAL.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(path, c.args...)
			cmd.Env = []string{playVariable + "=1"}
			out, err := cmd.Output()
			if err != nil || string(out) != c.want {
				t.Errorf("%v, %q; want %q", err, out, c.want)
			}
		})
	}
	t.Run("a program that was not patched", func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{playVariable + "=1"}
		if out, err := cmd.Output(); err != nil || string(out) != "dumpable" {
			t.Errorf("%v, %q", err, out)
		}
	})
}

// TestChildIsOurs has the program go on in a child, whose process id comes over the control socket.
func TestChildIsOurs(t *testing.T) {
	path := self(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	control := os.NewFile(uintptr(fds[1]), "control")
	defer unix.Close(fds[0])
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(path, "role", Steps{CloneFlags: unix.CLONE_PARENT}.Argument())
	cmd.Env, cmd.ExtraFiles, cmd.Stdout = []string{playVariable + "=1"}, []*os.File{control}, w
	runtime.LockOSThread() // the child dies with the thread that made its parent
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	_ = control.Close()
	buf := make([]byte, 64)
	if n, err := unix.Read(fds[0], buf); n != 4 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	pid := int(buf[0]) | int(buf[1])<<8 | int(buf[2])<<16 | int(buf[3])<<24
	var ws unix.WaitStatus
	if got, err := unix.Wait4(pid, &ws, 0, nil); got != pid || err != nil || ws.ExitStatus() != 0 {
		t.Errorf("child %d: %d, %v, %v", pid, got, err, ws)
	}
	n, _ := r.Read(buf)
	if string(buf[:n]) != "not dumpable" {
		t.Errorf("the child says %q", buf[:n])
	}
}

func TestArgumentsAreTheStages(t *testing.T) {
	for want, s := range map[string]Steps{
		"000000000": {},
		"700008000": {Namespaces: 7, CloneFlags: unix.CLONE_PARENT},
		"22c020000": {Namespaces: 2, CloneFlags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
			unix.CLONE_NEWPID},
	} {
		if got := s.Argument(); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

func TestCopyLeavesTheRestAlone(t *testing.T) {
	image, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	before, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := patched(image)
	if err != nil || len(copied) != len(image) {
		t.Fatalf("%d bytes of %d: %v", len(copied), len(image), err)
	}
	after, err := elf.NewFile(bytes.NewReader(copied))
	if err != nil {
		t.Fatal(err)
	}
	if before.Entry == after.Entry {
		t.Error("the entry point is the same")
	}
	changed := 0
	for i := range image {
		if image[i] != copied[i] {
			changed++
		}
	}
	if changed > 16 { // two addresses
		t.Errorf("%d bytes changed", changed)
	}
}

func TestCopyRefusesWhatItCannotPatch(t *testing.T) {
	image, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.Clone(image[:ehdrSize])
	broken := bytes.Clone(image)
	copy(broken[ehdrPhoff:], bytes.Repeat([]byte{0xff}, 8))
	without := bytes.ReplaceAll(image, marker, make([]byte, len(marker)))
	stage := append(bytes.Clone(marker), make([]byte, 100)...)
	across := append(bytes.Clone(image), make([]byte, 2*chunkSize-5-len(image)%chunkSize)...)
	for name, b := range map[string][]byte{
		"a second stage across two chunks": append(across, stage...),
		"nothing":                          nil,
		"a script":                         []byte("#!/bin/sh\n" + strings.Repeat("x", 100)),
		"a header alone":                   header,
		"a program without stage":          without,
		"two stages":                       append(bytes.Clone(image), stage...),
		"a table beyond the end":           broken,
		"the marker at the end":            append(bytes.Clone(without), marker...),
		"32 bits":                          append([]byte("\x7fELF\x01\x01"), image[6:]...),
		"of another order of bytes":        append([]byte("\x7fELF\x02\x02"), image[6:]...),
	} {
		if _, err := patched(b); !errors.Is(err, errNoStage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
