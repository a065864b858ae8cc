package test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestStats(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.idle("web")
	d.container("busy", nil, "sh", "-c", "while :; do :; done")
	d.container("done", nil, "true")
	d.ok("wait", "done")
	d.exec("web", "ping", "-c2", "-s", "4000", "-W5", peer4)

	out := d.ok("stats", "--no-stream")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !regexp.MustCompile(`^CONTAINER ID +NAME +CPU % +MEM USAGE / LIMIT +MEM % +NET I/O +BLOCK I/O +PIDS$`).MatchString(
		strings.TrimSpace(lines[0])) {
		t.Fatalf("stats:\n%s", out)
	}
	row := regexp.MustCompile(`^[0-9a-f]{12} +busy +(\d+\.\d\d)% +[\d.]+[KMG]iB / [\d.]+[MGT]iB +\d+\.\d\d% +\S+ / \S+ +-- +\d+$`)
	m := row.FindStringSubmatch(strings.TrimSpace(lines[1]))
	if m == nil || m[1] == "0.00" {
		t.Errorf("a container that is busy: %q", lines[1])
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"web", "--format", "{{.Name}} {{.NetIO}}"}, `^web [\d.]+kB / 8\.\d*kB$`},
		{[]string{"-a", "--format", "{{.Name}} {{.PIDs}}"}, `(?m)^done --$`},
		{[]string{"--no-trunc", "--format", "{{.ID}}", "busy"}, `^[0-9a-f]{64}$`},
	} {
		args := append([]string{"stats", "--no-stream"}, test.args...)
		if out := d.ok(args...); !regexp.MustCompile(test.want).MatchString(out) {
			t.Errorf("%v: %q", args, out)
		}
	}
	var one struct{ Name, CPUPerc string }
	if err := json.Unmarshal([]byte(d.ok("stats", "--no-stream", "--format", "json", "web")), &one); err != nil ||
		one.Name != "web" {
		t.Errorf("as JSON: %v, %v", one, err)
	}
	d.fails("No such container", "stats", "--no-stream", "nobody")
	d.fails("exclude each other", "stats", "--all", "web")
	d.fails("give a duration from 100ms to 24h", "stats", "--interval", "1ms")

	s := d.screen("NO_COLOR=1", 120, 10, "stats", "--interval", "200ms")
	s.shows(`(?m)^CONTAINER ID`, ` busy `, ` web `)
	d.ok("rm", "-f", "busy")
	s.shows(`(?s)^CONTAINER ID[^\n]*\n[^\n]* web [^\n]*\n+$`)
	s.keys("C-c")
	s.ends()
}
