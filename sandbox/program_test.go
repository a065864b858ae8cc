package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/sandbox/entry"
)

// TestRolesFindTheirDescriptors: the socket first, then the namespaces, the files, and last the program itself.
func TestRolesFindTheirDescriptors(t *testing.T) {
	var files []*os.File
	for range 4 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	program, err := sealedProgram()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		role role
		fds  []*os.File
		path string
	}{
		{"nothing", role{name: roleInit}, nil, "/proc/self/fd/3"},
		{"a socket", role{name: roleInit, control: files[0]}, files[:1], "/proc/self/fd/4"},
		{"namespaces", role{name: roleAgent, control: files[0], namespaces: files[1:3]}, files[:3], "/proc/self/fd/6"},
		{"files", role{name: roleHelper, control: files[0], files: files[1:2]}, files[:2], "/proc/self/fd/5"},
		{"all", role{
			name: roleExec, control: files[0], namespaces: files[1:3], files: files[3:], cloneFlags: unix.CLONE_PARENT,
		}, files, "/proc/self/fd/7"},
	} {
		cmd, err := c.role.command()
		if err != nil {
			t.Fatal(err)
		}
		steps := entry.Steps{Namespaces: len(c.role.namespaces), CloneFlags: c.role.cloneFlags}
		want := []string{"usernet-" + strings.Trim(c.role.name, "_"), c.role.name, steps.Argument()}
		if cmd.Path != c.path || !slices.Equal(cmd.Args, want) || !slices.Equal(cmd.Env, ownEnv) || cmd.Env == nil {
			t.Errorf("%s: %s %q in %q; want %s %q", c.name, cmd.Path, cmd.Args, cmd.Env, c.path, want)
		}
		if !slices.Equal(cmd.ExtraFiles, append(slices.Clone(c.fds), program)) {
			t.Errorf("%s: files %v", c.name, cmd.ExtraFiles)
		}
	}
}

// setProgram has the program of the roles be another one during a test.
func setProgram(t *testing.T, f func() io.Reader) {
	before := Program
	t.Cleanup(func() { Program = before })
	Program = f
}

func TestTheProgramIsTheOneCarriedOrThisOne(t *testing.T) {
	this, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		program func() io.Reader
		want    string
	}{
		{"none is set", nil, string(this)},
		{"none is carried", func() io.Reader { return nil }, string(this)},
		{"one is carried", func() io.Reader { return strings.NewReader("carried") }, "carried"},
	} {
		setProgram(t, c.program)
		r, err := image()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != c.want {
			t.Errorf("%s: %d bytes, %v; want %d", c.name, len(got), err, len(c.want))
		}
		_ = r.Close()
	}
	setProgram(t, func() io.Reader { return strings.NewReader("no program") })
	if f, err := seal(); err == nil {
		t.Errorf("what is no program became %v", f.Name())
	}
}

func TestTheSealedProgramCannotChange(t *testing.T) {
	f, err := seal()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() != 0o555 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, unix.EBADF) {
		t.Errorf("it is open for writing: %v", err)
	}
	if w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0); err == nil {
		if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPERM) {
			t.Errorf("it can be written to: %v", err)
		}
		_ = w.Close()
	}
	if err := checkSeals(f); err == nil { // else the kernel is older than Linux 6.3
		if err := f.Chmod(0o444); !errors.Is(err, unix.EPERM) {
			t.Errorf("who may execute it can change: %v", err)
		}
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags != unix.FD_CLOEXEC {
		t.Errorf("every program inherits it: flags %#x, %v", flags, err)
	}
}

func TestRolesOfOthersAreAllowedOnce(t *testing.T) {
	before := slices.Clone(agentRoles)
	t.Cleanup(func() { agentRoles = before })
	played := map[string]func() error{}
	other := Role{Name: "other"}
	allow([]Role{other, other}, played)
	allow([]Role{other}, played)
	if want := append(slices.Clone(before), "__other"); !slices.Equal(agentRoles, want) {
		t.Errorf("%q, want %q", agentRoles, want)
	}
	if len(played) != 1 || played["__other"] == nil {
		t.Errorf("played: %v", played)
	}
	if _, err := startAgent(nil, roleInit, nil); err == nil || !strings.Contains(err.Error(), roleInit) {
		t.Errorf("a sandbox was entered as its init: %v", err)
	}
}
