package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHelperLetsManyInAtOnce(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	text, code := output(t, Spec{Command: sh("ip -o link")}, Files{}, func(p *Process) {
		var group sync.WaitGroup
		for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
			group.Go(func() {
				reply, err := d.Configure(t.Context(), Target{Pid: p.Pid()}, Request{
					Add: []Interface{
						{Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0, name[3]}, MTU: 1500, Offload: true},
					},
				})
				if err != nil || reply.TAPs[name] == nil {
					t.Errorf("%s: %v", name, err)
				}
				reply.close()
			})
		}
		group.Wait()
	})
	for _, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
		if code != 0 || !strings.Contains(text, name) {
			t.Errorf("%s is not in\n%s", name, text)
		}
	}
}

func TestProcessesHaveNames(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if _, _, err := d.Namespace("/proc/self/ns/net"); err != nil { // it has begun
		t.Fatal(err)
	}
	for _, p := range d.processes {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Process.Pid))
		if err != nil || strings.TrimSpace(string(name)) != p.Args[0] {
			t.Errorf("%s is called %q, %v", p.Args[0], name, err)
		}
	}
	text, code := output(t, Spec{Command: sh("cat /proc/1/comm")}, Files{}, nil)
	if code != 0 || text != "usernet-command" {
		t.Errorf("the sandbox's first process is called %q, status %d", text, code)
	}
}

func TestHelperSaysWhatWentWrong(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Configure(t.Context(), Target{NetNS: "/nowhere"}, Request{}); err == nil ||
		!strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a namespace that does not exist: %v", err)
	}
	if _, _, err := d.Namespace("/nowhere"); !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a namespace that does not exist: %v", err)
	}
	dev, ino, err := d.Namespace("/proc/self/ns/net")
	if wantDev, wantIno, err2 := (*Helper)(nil).Namespace("/proc/self/ns/net"); err != nil || err2 != nil ||
		dev != wantDev || ino != wantIno {
		t.Errorf("this namespace: %d %d %v, %d %d %v", dev, ino, err, wantDev, wantIno, err2)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Configure(gone, Target{Pid: 1}, Request{}); err == nil {
		t.Error("entered a sandbox though nobody waits for it")
	}
	for _, cmd := range d.processes {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := cmd.Process.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Configure(t.Context(), Target{Pid: 1}, Request{}); !errors.Is(err, errNoHelper) {
		t.Errorf("without a helper: %v", err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}

func TestHelperOpensNamespacesOnly(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/file", []byte("x"), 0o600), unix.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	// A pipe that nobody writes to would hold who opens it, and a device may do anything.
	for _, path := range []string{dir + "/file", dir + "/fifo", dir, "/dev/zero", "/proc/self/exe", "/proc/self/mem"} {
		for _, target := range []Target{{NetNS: path}, {Pid: os.Getpid(), UserNS: path}} {
			if _, err := d.Configure(t.Context(), target, Request{}); err == nil ||
				!strings.Contains(err.Error(), "is not a namespace") {
				t.Errorf("%+v: %v", target, err)
			}
		}
	}
}

func TestHelperAndOpenerAreConfined(t *testing.T) {
	d, err := StartHelper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if _, _, err := d.Namespace("/proc/self/ns/net"); err != nil { // it is ready
		t.Fatal(err)
	}
	_, _ = d.Configure(t.Context(), Target{NetNS: "/nowhere"}, Request{}) // as is the other
	for _, cmd := range d.processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", cmd.Args, want)
			}
		}
		if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid)); os.Geteuid() != 0 &&
			!errors.Is(err, os.ErrPermission) {
			t.Errorf("%s can be read: %v", cmd.Args, err)
		}
	}
}
