package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamespacesOfProcesses starts a process in namespaces of its own and looks for it, through a helper and without.
func TestNamespacesOfProcesses(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	here, err := (*Helper)(nil).Namespaces(os.Getpid())
	if err != nil || len(here.User) != 1 || here.Net.Ino == 0 {
		t.Fatalf("this process: %v, %v", here, err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for name, d := range map[string]*Helper{"itself": nil, "the helper": d} {
		below, err := d.Namespaces(cmd.Process.Pid)
		if err != nil || len(below.User) != 2 || below.User[0] == here.User[0] || below.User[1] != here.User[0] ||
			below.Net == here.Net {
			t.Errorf("%s: %v, %v; this process is in %v", name, below, err, here)
		}
		if again, err := d.Namespaces(os.Getpid()); err != nil || !reflect.DeepEqual(again, here) {
			t.Errorf("%s: %v, %v", name, again, err)
		}
		if _, err := d.Namespaces(1 << 29); err == nil {
			t.Errorf("%s: a process that does not exist has namespaces", name)
		}
	}
}

func TestOwnersOfNetworkNamespaces(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUSER}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	in, err := (*Helper)(nil).Namespaces(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]NamespaceID{cmd.Process.Pid: in.User[0], os.Getpid(): {}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if owner, err := OwnerOf(f); err != nil || owner != want {
			t.Errorf("%v, %v, want %v", owner, err, want)
		}
	}
}
