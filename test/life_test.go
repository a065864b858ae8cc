package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// state is what inspect says of a container, as a line.
func (d *daemon) state(name string) string {
	d.t.Helper()
	return d.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name)
}

// settles waits until inspect says want of a container.
func (d *daemon) settles(name, want string) {
	d.t.Helper()
	eventually(d.t, func() error {
		if got := d.state(name); got != want {
			return fmt.Errorf("%s is %s, want %s", name, got, want)
		}
		return nil
	})
}

// TestDockerLivesWithContainers has the stock client end containers and start them again: with their addresses, names
// and ports, and with Docker's texts.
func TestDockerLivesWithContainers(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.ok("network", "create", "mynet")
		port := freePort()
		d.idle("first", "--network", "mynet")
		d.serve("web", []string{"--network", "mynet", "-e", "WORD=kept", "-p", fmt.Sprintf("%d:80", port)}, helper,
			"tcpserve", ":80", "addr")
		d.idle("client", "--network", "mynet")
		address, mac := d.address("web"), d.mac("web")
		d.dockerSays("web", "stop", "-t", "1", "web")
		d.settles("web", "exited 143 0")
		d.ok("rm", "-f", "first")
		d.dockerSays("web", "start", "web")
		if got := d.address("web") + d.mac("web"); got != address+mac {
			t.Errorf("it had %s, has %s", address+mac, got)
		}
		d.says("WORD=kept", "web", "env")
		d.logged("web", "listening")
		reaches := func(server string) { // which listens a moment after its container's start
			eventually(t, func() error {
				r := d.try("exec", "client", helper, "tcpdial", server)
				if r.code != 0 || !strings.Contains(r.stdout, "ok") {
					return fmt.Errorf("%s does not answer: %s%s", server, r.stdout, r.stderr)
				}
				return nil
			})
		}
		reaches("web:80")
		if out := atPeer(t, fmt.Sprintf("%s tcpdial %s:%d", helper, host4, port)); !sourceIs(out, peer4) {
			t.Errorf("the published port: %s", out)
		}
		before := d.pid("web")
		d.dockerSays("web", "start", "web") // 304
		if d.pid("web") != before {
			t.Error("start has started what runs")
		}
		d.dockerSays("web", "restart", "-t", "0", "web")
		if d.pid("web") == before || d.address("web") != address {
			t.Error("restart has not restarted it where it was")
		}
		d.dockerSays("web", "kill", "-s", "KILL", "web")
		d.dockerSays("exited 137", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web")
		d.dockerSays("137", "wait", "web")
		d.dockerOK("rename", "web", "shop")
		d.dockerSays("shop", "start", "shop")
		reaches("shop:80")
		d.container("ended", nil, "true")
		d.settles("ended", "exited 0 0")
		d.dockerFails("is not running", "kill", "ended")
		d.dockerFails("No such container: nothing", "start", "nothing")
		d.dockerOK("rm", "-f", "shop")
		d.dockerFails("No such container: shop", "restart", "shop")
		eventually(t, func() error { // another process removes a container's job
			jobs, err := os.ReadDir(filepath.Join(d.dir, "state.jobs"))
			if ids := strings.Fields(d.ok("ps", "-aq")); err != nil || len(jobs) != len(ids) {
				return fmt.Errorf("%d jobs of %d containers, %v", len(jobs), len(ids), err)
			}
			return nil
		})
	})
}

// TestDockerWatchesContainers has the stock client show logs, processes and what a container uses.
func TestDockerWatchesContainers(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.container("box", nil, "sh", "-c", "echo one; echo two >&2; echo three; exec sleep 1000000")
		d.logged("box", "three")
		if r := d.docker("logs", "box"); r.stdout != "one\nthree\n" || r.stderr != "two\n" || r.code != 0 {
			t.Errorf("%v", r)
		}
		r := d.docker("logs", "--tail", "1", "-t", "box") // either stream may be the last
		if !regexp.MustCompile(`^20\S+Z (two|three)\n$`).MatchString(r.stdout + r.stderr) {
			t.Errorf("%v", r)
		}
		if out := d.dockerOK("top", "box"); !strings.Contains(out, "sleep 1000000") {
			t.Errorf("%s", out)
		}
		if head := d.dockerOK("top", "box"); !strings.HasPrefix(strings.Join(strings.Fields(head), " "),
			"UID PID PPID C STIME TTY TIME CMD") {
			t.Errorf("%s", head)
		}
		out := d.dockerOK("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}} {{.NetIO}}", "box")
		if !regexp.MustCompile(`^box [1-9]\d* .*iB / .*iB .*B / .*B$`).MatchString(out) {
			t.Errorf("stats: %s", out)
		}
		d.dockerOK("stop", "-t", "0", "box")
		d.dockerOK("start", "box")
		eventually(t, func() error {
			if out := d.docker("logs", "box").stdout; out != "one\nthree\none\nthree\n" {
				return fmt.Errorf("the log of two runs: %q", out)
			}
			return nil
		})
		d.container("ended", nil, "true")
		d.settles("ended", "exited 0 0")
		d.dockerFails("is not running", "top", "ended")
		// A followed log ends with the container.
		follow := make(chan result, 1)
		go func() { follow <- d.docker("logs", "-f", "--tail", "0", "box") }()
		eventually(t, func() error {
			if out := d.command("ss", "-xH", "state", "connected").stdout; !strings.Contains(out, d.socket) {
				return fmt.Errorf("the client has not asked yet")
			}
			return nil
		})
		d.ok("stop", "-t", "0", "box")
		if r := <-follow; r.code != 0 {
			t.Errorf("%v", r)
		}
	})
}

// TestDockerExec has the stock client run commands in containers: where these have the caller's files only if the user
// has allowed it.
func TestDockerExec(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.idle("box", "--share-exec", "-e", "WORD=kept")
		d.idle("closed")
		if r := d.docker("exec", "closed", "true"); r.code != 126 || !strings.Contains(r.stdout,
			"usernet run --share-exec") {
			t.Errorf("%v", r)
		}
		r := d.docker("exec", "-e", "MORE=too", "-w", "/usr", "box", "sh", "-c",
			"pwd; echo $WORD $MORE; echo bad >&2; exit 9")
		if r.stdout != "/usr\nkept too\n" || r.stderr != "bad\n" || r.code != 9 {
			t.Errorf("%v", r)
		}
		input := strings.Repeat("a line of text\n", 20000)
		r = d.commandInput(input, d.dockerCLI, "exec", "-i", "box", "cat")
		if r.stdout != input || r.code != 0 {
			t.Errorf("%d bytes of %d came back: %d %s", len(r.stdout), len(input), r.code, r.stderr)
		}
		if r := d.docker("exec", "box", "/no/such/command"); r.code != 127 || !strings.Contains(r.stdout,
			"no such file") {
			t.Errorf("%v", r)
		}
		file := filepath.Join(d.dir, "made")
		d.dockerOK("exec", "-d", "box", "sh", "-c", "echo x >"+file)
		eventually(t, func() error { return fileHas(file, "x") })
		d.ok("stop", "-t", "0", "closed")
		d.dockerFails("is not running", "exec", "closed", "true")
		long := make(chan result, 1)
		go func() { long <- d.docker("exec", "box", "sh", "-c", "echo x >"+file+"2; exec sleep 1000000") }()
		eventually(t, func() error { return fileHas(file+"2", "x") })
		d.ok("kill", "box")
		if r := <-long; r.code != 137 {
			t.Errorf("it ends with its container: %v", r)
		}
	})
}

// TestRestartPolicies has containers run again after their end, by themselves, by a new daemon, and not where a user
// has stopped them.
func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.fails("cannot specify both --restart and --rm", "run", "--rm", "--restart", "always", "--", "true")
	d.fails("unknown policy 'sometimes'", "run", "--restart", "sometimes", "--", "true")
	d.fails("maximum retry count can only be used with 'on-failure'", "run", "--restart", "always:3", "--", "true")
	for name, policy := range map[string]string{
		"aa": "always", "uu": "unless-stopped", "ff": "on-failure", "nn": "no",
	} {
		d.container(name, []string{"--restart", policy}, "sh", "-c", "exec sleep 1000000")
	}
	d.container("job", []string{"--restart", "on-failure:2"}, "sh", "-c", "echo run; exit 3")
	d.settles("job", "exited 3 2")
	if out := d.ok("logs", "job"); out != "run\nrun\nrun" {
		t.Errorf("it ran so often: %q", out)
	}
	d.container("good", []string{"--restart", "on-failure"}, "true")
	d.settles("good", "exited 0 0")
	address := d.address("ff")
	for _, name := range []string{"aa", "ff", "nn", "uu"} {
		syscall.Kill(d.pid(name), syscall.SIGKILL)
	}
	for _, name := range []string{"aa", "ff", "uu"} {
		d.settles(name, "running 0 1")
	}
	d.settles("nn", "exited 137 0")
	if got := d.address("ff"); got != address {
		t.Errorf("it had %s, has %s", address, got)
	}
	d.ok("stop", "-s", "KILL", "aa", "uu", "ff")
	for _, name := range []string{"aa", "uu", "ff"} {
		d.settles(name, "exited 137 1")
	}
	d.ok("start", "ff")
	killed := d.pid("ff")
	d.stop(syscall.SIGTERM)
	syscall.Kill(killed, syscall.SIGKILL)
	d.start()
	d.settles("aa", "running 0 0")  // always, also where it was stopped
	d.settles("ff", "running 0 1")  // it has failed while no daemon was there
	d.settles("uu", "exited 137 1") // it was stopped
	d.settles("job", "exited 3 2")
	d.ok("rm", "-f", "aa", "ff")
}

// TestAContainerThatCannotStart says why, keeps its record, and starts once it can. One that waits to run again can be
// stopped and removed.
func TestAContainerThatCannotStart(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	program := filepath.Join(d.dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.container("cc", nil, program)
	d.settles("cc", "exited 7 0")
	if err := os.Rename(program, program+"2"); err != nil {
		t.Fatal(err)
	}
	d.fails("no such file or directory", "start", "cc")
	d.settles("cc", "exited 127 0")
	if err := os.Rename(program+"2", program); err != nil {
		t.Fatal(err)
	}
	d.ok("start", "cc")
	d.settles("cc", "exited 7 0")
	d.ok("network", "create", "gone")
	d.container("lost", []string{"--network", "gone"}, "true")
	d.settles("lost", "exited 0 0")
	d.ok("network", "rm", "gone")
	d.fails("network gone not found", "start", "lost")
	d.container("loop", []string{"--restart", "always"}, "false")
	d.ok("stop", "loop")
	if got := d.ok("inspect", "-f", "{{.State.Status}}", "loop"); got != "exited" {
		t.Errorf("stopped, it is %s", got)
	}
	d.container("loop2", []string{"--restart", "always"}, "false")
	d.ok("rm", "-f", "loop2")
	d.container("owner", nil, "sleep", "1000000")
	d.container("guest", []string{"--network", "container:owner"}, "true")
	d.settles("guest", "exited 0 0")
	d.ok("stop", "-t", "0", "owner")
	d.fails("cannot join network of a non running container", "start", "guest")
	d.ok("start", "owner", "guest")
}

// TestRestartsLeakNothing restarts a container many times: descriptors, interfaces and processes stay as many.
func TestRestartsLeakNothing(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "--confine", "off") // so that its descriptors can be counted
	d.idle("cc", "--restart", "always")
	counts := func() (processes, descriptors int) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(d.processes()), len(fds)
	}
	d.ok("restart", "-t", "0", "cc")
	processes, descriptors := counts() // of which some may be about to be closed
	for i := range 6 {
		if i%2 == 0 {
			d.ok("restart", "-t", "0", "cc")
			continue
		}
		pid := d.pid("cc")
		syscall.Kill(pid, syscall.SIGKILL)
		eventually(t, func() error {
			out := d.ok("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "cc")
			if out == fmt.Sprint(pid, " running") || !strings.HasSuffix(out, "running") {
				return fmt.Errorf("%d was killed, and it is %s", pid, out)
			}
			return nil
		})
	}
	eventually(t, func() error {
		if p, n := counts(); p > processes || n > descriptors {
			return fmt.Errorf("%d processes and %d descriptors before, %d and %d after:\n%s", processes, descriptors, p, n,
				strings.Join(d.processes(), "\n"))
		}
		return nil
	})
	if out := d.exec("cc", "ip", "-br", "link").stdout; strings.Count(out, "\n") != 2 {
		t.Errorf("interfaces: %s", out)
	}
}

// TestStopSignal has containers end by their own signal, within their own time.
func TestStopSignal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.fails("invalid signal: NONE", "run", "--stop-signal", "NONE", "--", "true")
	d.container("cc", []string{"--stop-signal", "USR1", "--stop-timeout", "-1"}, "sh", "-c",
		"trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done")
	d.logged("cc", "ready")
	d.ok("stop", "cc")
	d.settles("cc", "exited 5 0")
	if out := d.ok("inspect", "-f", "{{.Config.StopSignal}} {{.Config.StopTimeout}}", "cc"); out != "USR1 -1" {
		t.Errorf("inspect: %s", out)
	}
}

// TestHealthChecks has a container become healthy, unhealthy and healthy again, as ps, inspect and events tell.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.fails("--health-* options need", "run", "--health-retries", "1", "--", "true")
	file := filepath.Join(d.dir, "file")
	d.idle("cc", "--health-cmd", "echo looked; test -e "+file, "--health-interval", "100ms", "--health-retries", "2")
	d.idle("slow", "--health-cmd", "sleep 1000", "--health-interval", "50ms", "--health-timeout", "100ms",
		"--health-retries", "1")
	health := func(name, want string) {
		t.Helper()
		eventually(t, func() error {
			if out := d.ok("ps", "--filter", "name="+name, "--format", "{{.Status}}"); !strings.HasSuffix(out, want) {
				return fmt.Errorf("%s is %q, want %s", name, out, want)
			}
			return nil
		})
	}
	health("cc", "(unhealthy)")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	health("cc", "(healthy)")
	var h struct {
		Status string
		Log    []struct {
			ExitCode int
			Output   string
		}
	}
	if err := json.Unmarshal([]byte(d.ok("inspect", "-f", "{{json .State.Health}}", "cc")), &h); err != nil {
		t.Fatal(err)
	}
	if last := h.Log[len(h.Log)-1]; h.Status != "healthy" || last.ExitCode != 0 || last.Output != "looked\n" {
		t.Errorf("inspect: %+v", h)
	}
	health("slow", "(unhealthy)")
	if out := d.ok("inspect", "-f", "{{(index .State.Health.Log 0).Output}}", "slow"); out !=
		"Health check exceeded timeout (100ms)" {
		t.Errorf("inspect: %s", out)
	}
	if names := d.ok("ps", "--filter", "health=unhealthy", "--format", "{{.Names}}"); names != "slow" {
		t.Errorf("unhealthy: %s", names)
	}
	events := d.ok("events", "--since", "1h", "--until", "0s", "--filter", "container=cc")
	for _, want := range []string{"health_status: unhealthy", "health_status: healthy"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event %q: %s", want, events)
		}
	}
	d.ok("restart", "-t", "0", "cc")
	health("cc", "(healthy)")
}
