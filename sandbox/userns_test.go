package sandbox

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUserNamespacesUpToOnesOwn starts a process in a user namespace and looks for it, through a helper and without.
func TestUserNamespacesUpToOnesOwn(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	own, err := (*Helper)(nil).UserNamespaces(os.Getpid())
	if err != nil || len(own) != 1 {
		t.Fatalf("this process: %v, %v", own, err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for name, d := range map[string]*Helper{"itself": nil, "the helper": d} {
		below, err := d.UserNamespaces(cmd.Process.Pid)
		if err != nil || len(below) != 2 || below[0] == own[0] || below[1] != own[0] {
			t.Errorf("%s: %v, %v; this process is in %v", name, below, err, own)
		}
		if here, err := d.UserNamespaces(os.Getpid()); err != nil || !slices.Equal(here, own) {
			t.Errorf("%s: %v, %v", name, here, err)
		}
		if _, err := d.UserNamespaces(1 << 29); err == nil {
			t.Errorf("%s: a process that does not exist has namespaces", name)
		}
	}
}
