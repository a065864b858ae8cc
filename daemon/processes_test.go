package daemon

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/api"
)

// TestLongCommandLinesAreCut has a process with a command line of 100 kB. A container can have thousands of these for
// the memory of one, and must not fill the daemon's by being looked at.
func TestLongCommandLinesAreCut(t *testing.T) {
	cmd := exec.Command("sleep", "1000000", strings.Repeat("0", 100_000))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var p api.Process
	// execve(2) lets its caller go on before the new command line can be read.
	for end := time.Now().Add(10 * time.Second); p.Command == "" && time.Now().Before(end); {
		p = api.Process{Pid: cmd.Process.Pid}
		if err := describe(&p, maxCommand); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(p.Command, "sleep 1000000 0") || len(p.Command) > maxCommand {
		t.Errorf("%d bytes of a command line: %.40s", len(p.Command), p.Command)
	}
	p.Command = "[sleep]"
	if err := describe(&p, 0); err != nil || p.Command != "[sleep]" {
		t.Errorf("%v %.40s", err, p.Command)
	}
}
