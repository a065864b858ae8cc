package test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A foreign sandbox is a process in a user and network namespace that usernet did not make.
type foreign struct {
	pid int
	d   *daemon
}

// startForeign starts a process in a user and a network namespace that usernet did not make, and in more kinds of them.
func startForeign(d *daemon, more ...uintptr) foreign {
	d.t.Helper()
	cmd := exec.Command("busybox", "sleep", "1000000")
	cmd.Env = d.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	for _, kind := range more {
		cmd.SysProcAttr.Cloneflags |= kind
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return foreign{cmd.Process.Pid, d}
}

// run runs a command in its namespaces.
func (f foreign) run(command ...string) result {
	f.d.t.Helper()
	args := []string{"--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(f.pid)}
	return f.d.command("nsenter", append(args, command...)...)
}

func TestAttach(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	d.serve("web", []string{"--network", "mynet"}, helper, "tcpserve", ":80", "addr")
	for _, test := range []struct {
		name  string
		flags func(f foreign) []string
	}{
		{"by pid", func(f foreign) []string { return []string{"--pid", strconv.Itoa(f.pid)} }},
		{"by namespace", func(f foreign) []string {
			return []string{"--netns",
				fmt.Sprintf("/proc/%d/ns/net", f.pid)}
		}},
		{"by namespaces", func(f foreign) []string {
			return []string{"--netns", fmt.Sprintf("/proc/%d/ns/net", f.pid), "--userns",
				fmt.Sprintf("/proc/%d/ns/user", f.pid)}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := d.in(t)
			f := startForeign(d)
			port := freePort()
			args := append([]string{"attach"}, test.flags(f)...)
			d.ok(append(args, "--name", "ext", "--network", "mynet", "-p", fmt.Sprintf("%d:80", port))...)

			if r := f.run(helper, "tcpdial", d.address("web")+":80"); !strings.HasPrefix(r.stdout, "ok") {
				t.Errorf("the attached process does not reach the network: %v", r)
			}
			if test.name == "by pid" { // it has neither mounts nor a host name of its own
				d.says("ok", "ext", helper, "tcpdial", d.address("web")+":80")
			}
			if r := f.run("ping", "-c1", "-W5", peer4); r.code != 0 {
				t.Errorf("the attached process does not reach the outside: %v", r)
			}
			if r := f.run("dig", "+short", "@127.0.0.11", "web"); strings.TrimSpace(r.stdout) != d.address("web") {
				t.Errorf("the attached process cannot ask for names: %v", r)
			}
			d.says(" 0% packet loss", "web", "ping", "-c1", "-W5", "ext")
			server := exec.Command("nsenter", "--preserve-credentials", "--user", "--net", "--target",
				strconv.Itoa(f.pid),
				helper, "tcpserve", ":80", "addr")
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				server.Process.Kill()
				server.Wait()
			}()
			eventually(t, func() error {
				if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !sourceIs(out, peer4) {
					return fmt.Errorf("through the published port: %s", out)
				}
				return nil
			})

			d.ok("detach", "ext")
			if r := f.run("ip", "-br", "link"); strings.Contains(r.stdout, "eth0") {
				t.Errorf("the interface is left behind: %v", r)
			}
			if r := d.exec("web", "ping", "-c1", "-W2", "ext"); r.code == 0 {
				t.Errorf("the name is left behind: %v", r)
			}
			if err := syscall.Kill(f.pid, 0); err != nil {
				t.Errorf("detach ended the process: %v", err)
			}
		})
	}
}

func TestAttachedProcessEnds(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	f := startForeign(d)
	d.ok("attach", "--pid", strconv.Itoa(f.pid), "--name", "ext")
	address := strings.Fields(f.run("ip", "-4", "-br", "addr", "show", "eth0").stdout)[2]
	syscall.Kill(f.pid, syscall.SIGKILL)
	eventually(t, func() error {
		if out := d.ok("ps", "-q"); out != "" {
			return fmt.Errorf("ps still shows the ended process: %s", out)
		}
		return nil
	})
	d.idle("next")
	if got := d.address("next"); got+"/16" != address {
		t.Errorf("the address %s did not return to the pool: the next is %s", address, got)
	}
}

func TestAttachErrors(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, args := range [][]string{
		{"attach", "--name", "x"},
		{"attach", "--pid", "999999999", "--name", "x"},
		{"attach", "--netns", "/no/such/file", "--name", "x"},
	} {
		if r := d.try(args...); r.code == 0 || r.stderr == "" {
			t.Errorf("%v", r)
		}
	}
	d.fails("No such container: nobody", "detach", "nobody")
	if out := d.ok("ps", "-aq"); out != "" {
		t.Errorf("failed attaches left containers: %s", out)
	}
}
