package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A pairing is one of usernet's other ways to connect a sandbox, and what it is held against.
type pairing struct{ tool, title, other string }

// pairings are the places of slirp4netns and pasta, each beside the original, and a daemon that has no /dev/net/tun.
var pairings = []pairing{
	{"usernet-slirp4netns", "usernet in slirp4netns's place", "slirp4netns"},
	{"usernet-pasta", "usernet in pasta's place", "pasta"},
	{"usernet-veth", "usernet without TAPs", "usernet"},
}

const groupStart = "Start, and memory of one idle instance"

// starts is how often a start is measured in each run.
const starts = 5

// place returns usernet's binary under the name of the program whose place it takes.
func (w *world) place(name string) (string, error) {
	dir := filepath.Join(w.dir, "places")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	link := filepath.Join(dir, name)
	if _, err := os.Lstat(link); err == nil {
		return link, nil
	}
	return link, os.Symlink(w.binary, link)
}

// original returns the program itself.
func (w *world) original(name string) (string, error) { return name, nil }

// withoutTUN starts a namespace in which /dev/net is empty, and returns a command that runs others there.
func (w *world) withoutTUN() (prefix []string, stop func(), err error) {
	cmd, err := w.start("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		"mount -t tmpfs none /dev/net && exec sleep 100000")
	if err != nil {
		return nil, nil, err
	}
	err = wait("a namespace without /dev/net/tun", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return strings.TrimSpace(string(name)) == "sleep"
	})
	return []string{"nsenter", "--preserve-credentials", "--user", "--mount", fmt.Sprint("--target=", cmd.Process.Pid)},
		func() { w.stop(cmd) }, err
}

// connectVeth is connectUsernet with a daemon that cannot open /dev/net/tun.
func connectVeth(w *world, mtu int) (*sandbox, error) {
	prefix, stop, err := w.withoutTUN()
	if err != nil {
		return nil, err
	}
	s, err := connectDaemon(w, mtu, prefix)
	if err != nil {
		stop()
		return nil, err
	}
	closeDaemon := s.close
	s.close = func() {
		closeDaemon()
		stop()
	}
	return s, nil
}

// startSlirp starts slirp4netns or what is in its place, waits until it says that it is ready, and returns the process.
func startSlirp(w *world, binary string, target int) (*exec.Cmd, error) {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd := exec.Command(binary, "--configure", "--ready-fd", "3", strconv.Itoa(target), "tap0")
	cmd.Env, cmd.ExtraFiles = w.environ(), []*os.File{theirs}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		return cmd, fmt.Errorf("%s does not get ready: %w", binary, err)
	}
	return cmd, nil
}

// startPasta starts pasta or what is in its place, which goes to the background, and returns its process id.
func startPasta(w *world, binary string, target int) (int, error) {
	file := filepath.Join(w.dir, "pasta.pid")
	args := []string{"--config-net", "--quiet", "--interface", "ext0", "--pid", file, strconv.Itoa(target)}
	if _, err := w.run(binary, args...); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// measureStarts measures how long each tool that serves one namespace takes to start, and what memory it has then.
func (w *world) measureStarts(r *report, all []tool) error {
	for range w.options.runs * starts {
		for _, t := range all {
			if t.start == nil {
				continue
			}
			if err := w.oneStart(r, t); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	return nil
}

func (w *world) oneStart(r *report, t tool) error {
	target, _, stop, err := holder(w)
	if err != nil {
		return err
	}
	defer stop()
	began, before := time.Now(), childrensTime()
	pid, end, err := t.start(w, target)
	took := time.Since(began)
	if err != nil {
		return err
	}
	defer end()
	used, err := processorTime(pid)
	if err != nil {
		return err
	}
	used += childrensTime() - before // of what it was started by, and has ended
	status := processStatus(pid)
	for _, c := range []struct {
		name, unit string
		value      float64
	}{
		{"until it is ready", "ms", float64(took.Microseconds()) / 1000},
		{"processor time until then", "ms", float64(used.Microseconds()) / 1000},
		{"resident memory", "MiB", float64(status["VmRSS"]) / 1024},
		{"of which no file's", "MiB", float64(status["RssAnon"]) / 1024},
	} {
		r.add(t.name, cell{group: groupStart, name: c.name, unit: c.unit, lower: true}, c.value)
	}
	return nil
}

// slirpStart and pastaStart are starts of a program found by find.
func slirpStart(find func(*world, string) (string, error)) func(*world, int) (int, func(), error) {
	return func(w *world, target int) (int, func(), error) {
		binary, err := find(w, "slirp4netns")
		if err != nil {
			return 0, nil, err
		}
		cmd, err := startSlirp(w, binary, target)
		if err != nil {
			return 0, nil, err
		}
		return cmd.Process.Pid, func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}, nil
	}
}

func pastaStart(find func(*world, string) (string, error)) func(*world, int) (int, func(), error) {
	return func(w *world, target int) (int, func(), error) {
		binary, err := find(w, "pasta")
		if err != nil {
			return 0, nil, err
		}
		pid, err := startPasta(w, binary, target)
		return pid, func() { _ = syscall.Kill(pid, syscall.SIGTERM) }, err
	}
}

// pairTable prints the pairings' columns of a group, where there are any.
func (r *report) pairTable(w io.Writer, group string, value func(string, cell) string) {
	var columns []pairing
	lines := r.group(group)
	for _, p := range pairings {
		for _, c := range lines {
			if r.value(p.tool, c) > 0 {
				columns = append(columns, p)
				break
			}
		}
	}
	if len(columns) == 0 {
		return
	}
	fmt.Fprintf(w, "### %s: beside what it stands in for\n\n| | unit | MTU |", group)
	for _, p := range columns {
		fmt.Fprintf(w, " %s | %s | ratio |", p.title, p.other)
	}
	fmt.Fprintf(w, "\n|---|---|---|%s\n", strings.Repeat("---|---|---|", len(columns)))
	for _, c := range lines {
		var row strings.Builder
		any := false
		for _, p := range columns {
			own, other := r.value(p.tool, c), r.value(p.other, c)
			any = any || own > 0
			ratio := "–"
			if own > 0 && other > 0 {
				if ratio = fmt.Sprintf("%.2f×", own/other); c.lower {
					ratio = fmt.Sprintf("%.2f×", other/own)
				}
			}
			fmt.Fprintf(&row, " %s | %s | %s |", value(p.tool, c), value(p.other, c), ratio)
		}
		if any {
			mtu := "–"
			if c.mtu > 0 {
				mtu = strconv.Itoa(c.mtu)
			}
			fmt.Fprintf(w, "| %s | %s | %s |%s\n", c.name, c.unit, mtu, row.String())
		}
	}
	fmt.Fprintln(w)
}
