package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	needsPodman = "needs Podman; make engines runs such containers"
	needsDocker = "needs rootless Docker; make engines runs such commands"
)

// notRun are blocks of commands in the documentation that this test does not run, by page and first line, with the
// reason.
var notRun = map[string]string{
	"README.md: make demo    # see it work: two containers, names, a published port, the host, each step with its output": "builds the tree; continuous integration runs both",
	"README.md: sudo apt-get install gcc libc6-dev make git util-linux iproute2 procps \\":                                "needs root; .ci/run does it",
	"README.md: make install                # static binary, manual pages, completions and systemd units to ~/.local":     "TestInstall does it",
	"docs/run.md: unshare --map-root-user --map-auto -- chown -R 1:1 DIR":                                                 "DIR stands for a directory, and the tests' world has no subordinate ids",
	"docs/runtimes.md: unshare --user --map-root-user --net sleep 1h &":                                                   "typed by hand unshare is done before the next line; make engines runs both commands",

	"docs/runtimes.md: usernet network create mynet":       needsPodman,
	"docs/runtimes.md: usernet integrate cni --write":      needsPodman,
	"docs/runtimes.md: usernet integrate netavark --write": needsPodman,
	"docs/runtimes.md: usernet integrate oci --write":      needsPodman,

	"docs/runtimes.md: usernet integrate docker --write && systemctl --user daemon-reload && systemctl --user restart docker": needsDocker,
	"docs/runtimes.md: docker network create -d usernet --ipam-driver usernet --ipam-opt network=mynet mynet":                 needsDocker,

	"docs/performance.md: make bench BENCHFLAGS=\"--seconds 1 --markdown tables.md --svg docs/performance.svg --peers DIR \\": "takes an hour",
}

// before are the commands that a page takes to have been run.
var before = map[string]string{
	"docs/api.md":      "usernet run -d --name web -p 8090:80 -- sleep 1000",
	"docs/dns.md":      "usernet network create mynet; usernet run -d --name web --network mynet -- sleep 1000; usernet run -d --name db --network mynet -- sleep 1000",
	"docs/egress.md":   "printf 'all:\\n\\ttrue\\n' >Makefile",
	"docs/networks.md": "usernet run -d --name web -- sleep 1000",
	"docs/observe.md":  "usernet network create mynet; usernet run -d --name web --network mynet -- sleep 1000; usernet run -d --name db --network mynet -- sleep 1000",
	"docs/run.md":      "usernet network create mynet; usernet run -d --name web --network mynet -- sleep 1000",
}

// after are commands that end what a page leaves running, apart from containers.
var after = map[string]string{
	"README.md":   "kill $(jobs -p)",
	"docs/run.md": "kill $(jobs -p)",
}

var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// TestCommandsInTheDocumentation runs each block of commands in README.md and docs/, page by page, with a daemon at the
// default socket. Each block says in its language whether it is commands (sh) or something else.
func TestCommandsInTheDocumentation(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for line := range notRun {
		left[line] = true
	}
	for _, path := range append(pages, "../README.md") {
		name := strings.TrimPrefix(path, "../")
		text := readFile(t, path)
		var script strings.Builder
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			first, _, _ := strings.Cut(block[2], "\n")
			switch {
			case block[1] == "":
				t.Errorf("%s: the block %q does not say what it is: sh for commands", name, first)
			case block[1] != "sh":
			case notRun[name+": "+first] != "":
				delete(left, name+": "+first)
			default:
				script.WriteString(block[2])
			}
		}
		if script.Len() == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) { runPage(t, name, script.String()) })
	}
	for line := range left {
		t.Errorf("no page has the block %q any more", line)
	}
}

// runPage runs the commands of a page in a home of its own.
func runPage(t *testing.T, name, script string) {
	d := newDaemon(t)
	run := filepath.Join(d.dir, "run", "usernet")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	d.socket = filepath.Join(run, "usernet.sock")
	d.start()
	home := filepath.Join(d.dir, "h")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	// A server needs a moment until it listens; who follows the documentation by hand gives it that.
	prelude := `set -euo pipefail
curl() { command curl --retry 20 --retry-connrefused --retry-delay 1 "$@"; }
set -x
`
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+before[name]+"\n"+script+"\n"+after[name])
	cmd.WaitDelay = patience // what a page leaves running has the output open
	cmd.Dir = home
	cmd.Env = append(d.environ(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the commands of %s: %v\n%s", name, err, out)
	}
}
