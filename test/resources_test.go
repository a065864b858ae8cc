package test

import (
	"os"
	"strings"
	"testing"
)

// TestLimitsAreRefusedWhereNoneCanBeHad has limits be an error with the reason, and nothing is left behind. Where they
// can be had, a virtual machine shows them (scripts/vm.sh limits).
func TestLimitsAreRefusedWhereNoneCanBeHad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	if strings.Contains(d.ok("info"), "Limits of containers: memory") {
		t.Skip("the tests' cgroup was delegated to them")
	}
	for _, flags := range [][]string{
		{"--memory", "64m"}, {"--cpus", "0.5"}, {"--pids-limit", "5"}, {"-d", "-m", "64m"},
	} {
		args := append(append([]string{"run", "--name", "box"}, flags...), "--", "true")
		if r := d.try(args...); r.code != 125 || !strings.Contains(r.stderr, "containers cannot be limited here") ||
			!strings.Contains(r.stderr, "usernet explain containers-cannot-be-limited") {
			t.Errorf("%v: %d %s", flags, r.code, r.stderr)
		}
	}
	if out := d.ok("ps", "-aq"); out != "" {
		t.Errorf("left: %s", out)
	}
	if out := d.try("check").stdout; !strings.Contains(out, "limited  limits of containers: ") {
		t.Errorf("check:\n%s", out)
	}
	for _, test := range []struct{ flag, value, want string }{
		{"--memory", "1m", "Minimum memory limit allowed is 6MB"},
		{"--memory", "a lot", "invalid size"},
		{"--memory-swap", "64m", "You should always set the Memory limit when using Memoryswap limit"},
		{"--cpus", "9999", "range of CPUs is from 0.01 to"},
		{"--cpus", "many", "failed to parse many as a rational number"},
	} {
		d.fails(test.want, "run", test.flag, test.value, "--", "true")
	}
	d.idle("web")
	d.fails("containers cannot be limited here", "update", "--memory", "64m", "web")
	d.fails("one or more flags", "update", "web")
	d.ok("run", "--rm", "--pids-limit", "-1", "--", "true") // which is none
}

// TestDockerUpdates has the stock client change a restart policy, and hear what cannot be changed here.
func TestDockerUpdates(t *testing.T) {
	eachDocker(t, func(t *testing.T, d *daemon) {
		d.idle("web")
		d.dockerSays("web", "update", "--restart", "on-failure:3", "web")
		if out := d.ok("inspect", "-f", "{{.HostConfig.RestartPolicy}}", "web"); !strings.Contains(out, "on-failure") {
			t.Errorf("policy: %s", out)
		}
		d.dockerFails("usernet has the limits Memory", "update", "--cpuset-cpus", "0", "web")
		d.dockerFails("Minimum memory limit allowed is 6MB", "update", "--memory", "1m", "web")
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil { // version 1, or none
			d.dockerFails("cgroups", "update", "--memory", "64m", "--memory-swap", "64m", "web")
		}
	})
}
