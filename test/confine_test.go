package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDaemonIsConfined looks at the running daemon from outside: what it is able to do is what the kernel says.
func TestDaemonIsConfined(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	if out := d.ok("info"); !strings.Contains(out, "Confined: no-new-privileges, not-dumpable, landlock, seccomp\n") {
		t.Errorf("info: %s", out)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		if text := readFile(t, task); !strings.Contains(text, "NoNewPrivs:\t1") ||
			!strings.Contains(text, "Seccomp:\t2") {
			t.Errorf("%s: %s", task, text)
		}
	}
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", d.cmd.Process.Pid)); err == nil {
		t.Error("the daemon's environment can be read by its user's other programs")
	}
	// Everything that needs more than the daemon has left: entering, leaving and setting up sandboxes.
	twoOn(d, "mynet")
	d.idle("one")
	d.ok("network", "connect", "mynet", "one")
	d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", "mynet-a")
	d.ok("network", "disconnect", "mynet", "one")
	d.ok("rm", "-f", "one")
	// The processes that did it for the daemon.
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, file := range children {
		pids = append(pids, strings.Fields(readFile(t, file))...)
	}
	if len(pids) != 3 {
		t.Errorf("the daemon has processes %v, want a helper, an opener and a starter", pids)
	}
	var names []string
	for _, pid := range pids {
		names = append(names, strings.TrimSpace(readFile(t, "/proc/"+pid+"/comm")))
		starts := strings.Contains(readFile(t, "/proc/"+pid+"/cmdline"), "starter") // what the user runs
		if text := readFile(t, "/proc/"+pid+"/status"); !starts && (!strings.Contains(text, "NoNewPrivs:\t1") ||
			!strings.Contains(text, "Seccomp:\t2")) {
			t.Errorf("process %s of the daemon is not confined: %s", pid, text)
		}
		if _, err := os.ReadFile("/proc/" + pid + "/environ"); err == nil {
			t.Errorf("process %s of the daemon can be read by its user's other programs", pid)
		}
	}
	slices.Sort(names)
	if want := []string{"usernet-helper", "usernet-opener", "usernet-starter"}; !slices.Equal(names, want) {
		t.Errorf("ps calls the daemon's processes %q, want %q", names, want)
	}
}

func TestConfinementCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ flag, info string }{
		{"off", "Confined: no\n"},
		{"seccomp", "Confined: no-new-privileges, seccomp\n"},
		{"not-dumpable", "Confined: not-dumpable\n"},
	} {
		t.Run(test.flag, func(t *testing.T) {
			d := startDaemon(t, "--confine", test.flag)
			if out := d.ok("info"); !strings.Contains(out, test.info) {
				t.Errorf("info lacks %q: %s", test.info, out)
			}
			d.idle("one")
			d.says(" 0% packet loss", "one", "ping", "-c1", "-W5", d.gateway("one"))
		})
	}
	d := newDaemon(t)
	d.fails("give off, or any of", "serve", "--confine", "everything")
}
