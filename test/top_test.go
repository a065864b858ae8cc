package test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/usernet/usernet/internal/hang"
)

// screen is a terminal in which usernet runs: a window of tmux.
type screen struct {
	d      *daemon
	socket string
}

// screen starts usernet in a terminal of a size.
func (d *daemon) screen(env string, width, height int, args ...string) *screen {
	d.t.Helper()
	s := &screen{d, filepath.Join(d.t.TempDir(), "tmux")}
	command := strings.Join(append([]string{"env", env, usernet}, args...), " ")
	d.t.Cleanup(func() { d.command("tmux", "-S", s.socket, "kill-server") })
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), command)
	return s
}

func (s *screen) tmux(args ...string) string {
	s.d.t.Helper()
	r := s.d.command("tmux", append([]string{"-S", s.socket}, args...)...)
	if r.code != 0 {
		s.d.t.Fatalf("%v", r)
	}
	return r.stdout
}

func (s *screen) keys(keys ...string) {
	s.d.t.Helper()
	s.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until the terminal shows what matches all patterns.
func (s *screen) shows(patterns ...string) {
	s.d.t.Helper()
	eventually(s.d.t, func() error {
		text := s.tmux("capture-pane", "-p")
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(text) {
				return fmt.Errorf("%q is not on the screen:\n%s", p, text)
			}
		}
		return nil
	})
}

// ends waits until the command has ended.
func (s *screen) ends() {
	s.d.t.Helper()
	eventually(s.d.t, func() error {
		if r := s.d.command("tmux", "-S", s.socket, "has-session"); r.code == 0 {
			shown := s.d.command("tmux", "-S", s.socket, "capture-pane", "-p") // fails where it has just ended
			return fmt.Errorf("it does not end:\n%s", shown.stdout)
		}
		return nil
	})
}

// TestTop drives usernet top in a terminal.
func TestTop(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "mynet")
	published, port := freePort(), freePort()
	d.serve("db", []string{"--network", "mynet", "-p", fmt.Sprintf("%d:7", published)},
		helper, "tcpserve", ":7", "echo")
	d.idle("web", "--network", "mynet")
	listen(t, fmt.Sprintf("%s:%d", host4, port), echo)
	h := d.hold("web", fmt.Sprintf("www.example.test:%d", port))
	h.echoes("hello")
	d.exec("web", helper, "l2raw", "eth0", "3", "ffffffffffff0202020202020806") // from a MAC that is another's

	s := d.screen("NO_COLOR=1", 60, 20, "top", "--interval", "200ms")
	s.shows(`\[1 Containers\]`, `(?m)^web .* 1 `, `(?m)^db `, `2 containers +1 flow `)
	if text := s.tmux("capture-pane", "-p",
		"-e"); regexp.MustCompile(`\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[;m]`).MatchString(text) {
		t.Errorf("there are colours without any being wanted: %q", text)
	}
	s.keys("2")
	s.shows(`\[2 Flows\]`, fmt.Sprintf(`(?m)^web +tcp .*www\.example\.test:%d`, port))
	s.tmux("resize-window", "-x", "130", "-y", "40")
	s.shows(`(?m)^CONTAINER .*STATE .*PATH .*AGE`, `established`)
	s.keys("3")
	s.shows(`\[3 DNS\]`, `web +www\.example\.test +A +NOERROR +upstream`)
	s.keys("4")
	s.shows(`(?m)^web +mynet +mac `)
	s.keys("5")
	s.shows(fmt.Sprintf(`(?m)^db +0\.0\.0\.0:%d +7 +tcp`, published))
	s.keys("1", "/", "d", "b", "Enter")
	s.shows(`filter: db`, `(?m)^db `)
	if text := s.tmux("capture-pane", "-p"); regexp.MustCompile(`(?m)^web `).MatchString(text) {
		t.Errorf("the filter lets web pass:\n%s", text)
	}
	s.keys("Escape")
	s.shows(`(?m)^web `)
	s.keys("p")
	s.shows("PAUSED")
	s.keys("p", "/", "w", "e", "b", "Enter", "Enter") // the second opens the selected row
	s.shows(`\[2 Flows\] .*of web`)
	s.keys("k")
	s.shows(fmt.Sprintf(`close the connection of web to www\.example\.test:%d\? y/n`, port))
	s.keys("y")
	if line := h.next(); !strings.Contains(line, "reset") && !strings.Contains(line, "ECONNRESET") {
		t.Errorf("the container's connection ended with %q", line)
	}
	s.shows("nothing")
	s.keys("?")
	s.shows("close the selected flow")
	s.keys("q", "q")
	s.ends()
	out := d.ok("top", "--interval", "200ms")
	for _, want := range []string{
		"Containers\n", "Flows\n", "DNS\n", "Drops\n", "Ports\n", "www.example.test", "2 containers",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in the plain sample:\n%s", want, out)
		}
	}
	out = d.ok("top", "db", "--interval", "200ms")
	if !regexp.MustCompile(`(?m)^db +0\.0\.0\.0:`).MatchString(out) || regexp.MustCompile(`(?m)\bweb\b`).MatchString(out) {
		t.Errorf("the plain sample of db:\n%s", out)
	}
	d.ok("rm", "-f", "web")
	gone := regexp.MustCompile(`(?m)\(gone\) +www\.example\.test`)
	if out := d.ok("top", "--interval", "200ms"); !gone.MatchString(out) {
		t.Errorf("who asked is not said to be gone:\n%s", out)
	}
	s = d.screen("NO_COLOR=1", 80, 20, "top", "db")
	s.shows(`\[2 Flows\] .*of db`)
	s.keys("Escape")
	s.shows(`\[1 Containers\]`)
	hang.Stop(t, d.cmd.Process.Pid)
	s.shows(`(?m)^the daemon has not answered for \d+s: usernet doctor`)
	_ = syscall.Kill(d.cmd.Process.Pid, syscall.SIGCONT)
	s.shows(`(?m)^\?: help`)
	s.keys("q")
	s.ends()
	d.fails("No such container: nobody", "top", "nobody")
	s = d.screen("TERM=dumb", 80, 20, "top; sleep 1000")
	s.shows(`the terminal "dumb" \(TERM\) cannot show it`)
	d.fails("give a duration from 100ms to 24h", "top", "--interval", "1ms")
}
