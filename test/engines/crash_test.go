package engines

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// talkers are two containers of an engine on a network of usernet's daemon, with an open connection between them.
type talkers struct {
	t    *testing.T
	u    *user
	exec func(container string, command ...string) []string // the engine's command line
	// detached is exec's that does not wait for processes in the background, where exec does.
	detached func(container string, command ...string) []string
}

// background runs a command that leaves a process in a container.
func (k talkers) background(container string, command ...string) {
	k.t.Helper()
	if k.detached != nil {
		k.exec = k.detached
	}
	k.run(container, command...)
}

// run runs a command in a container.
func (k talkers) run(container string, command ...string) {
	k.t.Helper()
	line := k.exec(container, command...)
	k.u.ok(line[0], line[1:]...)
}

// connect has container from open a connection to an echo server in container to, and say a line.
func (k talkers) connect(from, to string) {
	k.t.Helper()
	k.background(to, "sh", "-c", "nc -l -p 9000 -e cat </dev/null >/dev/null 2>&1 &")
	k.background(from, "sh", "-c",
		"(echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo after; sleep 1000) 2>/dev/null | "+
			"(until nc "+to+" 9000; do sleep 0.1; done) >/tmp/said 2>/dev/null &")
	eventually(k.t, func() error { return k.said(from, "before") })
}

// said says whether the echo of a line has come.
func (k talkers) said(from, want string) error {
	line := k.exec(from, "cat", "/tmp/said")
	if r := k.u.try(line[0], line[1:]...); !strings.Contains(r.stdout, want) {
		return fmt.Errorf("the connection has said %v, want %s", r, want)
	}
	return nil
}

// survive kills the daemon, starts another one, and looks at what was there: the connection, names, the page at a
// published port. It returns the new daemon's log.
func (k talkers) survive(end func(syscall.Signal), from, to, url string) (log string) {
	k.t.Helper()
	k.connect(from, to)
	end(syscall.SIGKILL)
	log, _ = k.u.daemon()
	k.run(from, "sh", "-c", ": >/tmp/go")
	eventually(k.t, func() error { return k.said(from, "after") })
	line := k.exec(from, "wget", "-qO-", "http://"+to+"/")
	eventually(k.t, func() error {
		if r := k.u.try(line[0], line[1:]...); r.stdout != "container" && r.stdout != "container\n" {
			return fmt.Errorf("by name, after the daemon was killed: %v", r)
		}
		return nil
	})
	if url != "" {
		eventually(k.t, func() error { return says(url, "container\n") })
	}
	return log
}

// removesWithoutDaemon has a container removed after a kill of the daemon, which the runtime does as with one, and a
// next daemon that has nothing of it. It returns what ends that.
func (u *user) removesWithoutDaemon(
	end func(syscall.Signal), start, remove func(name string),
) (nextEnd func(syscall.Signal)) {
	u.t.Helper()
	start("lost")
	u.has("lost", true)
	end(syscall.SIGKILL)
	remove("lost")
	_, nextEnd = u.daemon()
	u.has("lost", false)
	return nextEnd
}

// has waits until the daemon has a container, or has it no longer.
func (u *user) has(name string, want bool) {
	u.t.Helper()
	eventually(u.t, func() error {
		out := strings.Fields(u.ok(usernet, "ps", "-a", "--format", "{{.Names}}"))
		if slices.Contains(out, name) != want {
			return fmt.Errorf("usernet has %q; with %s: %v", out, name, want)
		}
		return nil
	})
}

// podmanExec is the command line that runs a command in a container of Podman's.
func podmanExec(container string, command ...string) []string {
	return append([]string{"podman", "exec", container}, command...)
}
