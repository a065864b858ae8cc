package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay/uplink"
	"github.com/usernet/usernet/sandbox"
)

func (d *doctor) versionPart(_ context.Context, w io.Writer) error {
	fmt.Fprintf(w, "usernet %s, %s, %s\n", version, runtime.Version(), runtime.GOARCH)
	return nil
}

// settings are what of the kernel matters to usernet.
var settings = []string{
	"kernel/osrelease", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns",
	"user/max_user_namespaces",
	"user/max_net_namespaces", "net/ipv4/ping_group_range", "net/ipv4/ip_unprivileged_port_start", "fs/file-max",
	"fs/inotify/max_user_instances", "net/core/rmem_max", "net/core/wmem_max",
}

func (d *doctor) machinePart(_ context.Context, w io.Writer) error {
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				fmt.Fprintf(w, "system: %s\n", strings.Trim(rest, "\"\n"))
			}
		}
	}
	for _, name := range settings {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			b = []byte("not there")
		}
		fmt.Fprintf(w, "%s: %s\n", strings.ReplaceAll(name, "/", "."), strings.Join(strings.Fields(string(b)), " "))
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	fmt.Fprintf(w, "uid: %d\nprocessors: %d\nopen files: %d, at most %d\n", os.Getuid(), runtime.NumCPU(), files.Cur,
		files.Max)
	if files.Max < filesFew {
		d.finds(errdefs.TopicFiles, "the hard limit of open files is %d: connections of containers may run out of them", files.Max)
	}
	return nil
}

// filesFew is a hard limit of open files at which busy containers run out of them: half of what systemd gives.
const filesFew = 4096

// checkTopics are the topics of requirements, by words in their names.
var checkTopics = []struct {
	word  string
	topic errdefs.Topic
}{
	{"namespace", errdefs.TopicNamespaces}, {"sandbox", errdefs.TopicNamespaces}, {"/proc", errdefs.TopicNamespaces},
	{"tun", errdefs.TopicTUN}, {"ping", errdefs.TopicPing},
}

func (d *doctor) checkPart(_ context.Context, w io.Writer) error {
	for _, r := range sandbox.Check() {
		if r.OK {
			fmt.Fprintf(w, "ok       %s: %s\n", r.Name, r.Detail)
			continue
		}
		word := "limited"
		if r.Needed {
			word = "MISSING"
		}
		fmt.Fprintf(w, "%s  %s: %s; %s\n", word, r.Name, r.Detail, r.Fix)
		d.lacks(r)
	}
	return nil
}

// lacks notes a requirement that the machine does not meet. The daemon tells of ping sockets, too.
func (d *doctor) lacks(r sandbox.Requirement) {
	topic := errdefs.TopicMachine
	for _, c := range checkTopics {
		if strings.Contains(strings.ToLower(r.Name), c.word) {
			topic = c.topic
			break
		}
	}
	if topic == errdefs.TopicPing {
		d.findsOnce(topic, "%s: %s", r.Name, r.Detail)
	} else {
		d.finds(topic, "%s: %s", r.Name, r.Detail)
	}
}

// plainKeys are keys of the configuration whose values say nothing of a secret. Of others only the kind is shown.
var plainKeys = []string{
	"log-level", "log-format", "confine", "dns", "dns-search", "dns-domain", "subnet", "gateway", "name", "driver",
	"scope", "egress",
	"default-address-pool", "total-memory", "limit-memory", "metrics-listen",
}

func (d *doctor) configPart(_ context.Context, w io.Writer) error {
	var names []string
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, variablePrefix) {
			names = append(names, fmt.Sprintf("%s (%d bytes)", name, len(value)))
		}
	}
	slices.Sort(names)
	fmt.Fprintf(w, "environment: %s\n", cmp.Or(strings.Join(names, ", "), "nothing of usernet's"))
	for _, v := range unreadVariables(os.Environ()) {
		d.finds(errdefs.TopicConfiguration, "%s", v)
	}
	name, err := configPath()
	if err != nil {
		return err
	}
	c, err := readConfig(name)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(w, "%s is not there\n", name)
		return nil
	}
	if err != nil {
		d.finds(errdefs.TopicConfiguration, "%s cannot be read: usernet config check", name)
		return errors.New("the file cannot be read") // what it says may be a part of a secret
	}
	fmt.Fprintf(w, "%s:\n", name)
	showConfig(w, "", c.values)
	return nil
}

// showConfig shows keys, and values that are no secrets.
func showConfig(w io.Writer, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			showConfig(w, strings.TrimPrefix(path+"."+k, "."), v[k])
		}
	case []any:
		for _, one := range v {
			showConfig(w, path, one)
		}
	case string:
		if key := path[strings.LastIndexByte(path, '.')+1:]; !slices.Contains(plainKeys, key) {
			v = fmt.Sprintf("%s, %d bytes", redacted, len(v))
		}
		fmt.Fprintf(w, "  %s = %s\n", path, v)
	default:
		fmt.Fprintf(w, "  %s = %v\n", path, v)
	}
}

func (d *doctor) uplinksPart(_ context.Context, w io.Writer) error {
	all, err := uplink.All()
	if err != nil {
		return err
	}
	for _, i := range all {
		a := uplink.Advise(i.Name, fmt.Sprint(os.Getuid()))
		fmt.Fprintf(w, "%s: %s\n", i.Name, a.State)
		if !a.Usable {
			d.finds(errdefs.TopicUplink, "%s: %s", i.Name, a.State)
		}
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "There is none.")
	}
	return nil
}

// storePart looks at the files of the state, and opens none of them: the daemon has them.
func (d *doctor) storePart(_ context.Context, w io.Writer) error {
	list, err := os.ReadDir(d.stateDir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(w, "%s is not there: no daemon has run yet\n", d.stateDir)
			return nil
		}
		return err
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			continue // it has just gone
		}
		fmt.Fprintf(w, "%s %d bytes, changed %s, %s\n", info.Mode(), info.Size(),
			info.ModTime().UTC().Format("2006-01-02 15:04:05"),
			e.Name())
		if strings.HasSuffix(e.Name(), ".damaged") {
			d.finds(errdefs.TopicState, "%s is the state as it was when it was found damaged", e.Name())
		}
		if e.Name() == "usernet.db" && info.Size() == 0 {
			d.finds(errdefs.TopicState, "the store %s is empty", e.Name())
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.stateDir, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	fmt.Fprintf(w, "free on that file system: %d MiB\n", free>>20)
	if free < freeLittle {
		d.finds(errdefs.TopicState, "the file system of the state has only %d MiB left", free>>20)
	}
	return nil
}

// freeLittle is what the state needs to be written and copied, and some more.
const freeLittle = 16 << 20

// logLines and logBytes bound what of a log is in the report.
const (
	logLines = 200
	logBytes = 64 << 10
)

// logTopics are events of the log that point to a problem.
var logTopics = []struct {
	event string
	topic errdefs.Topic
}{
	{"event=fault", errdefs.TopicFault}, {"event=lock-hangs", errdefs.TopicDaemonHangs},
	{"event=cluster-hosts-unreached", errdefs.TopicCluster}, {"event=published-ports-lost", errdefs.TopicPortBind},
	{"event=state-not-copied", errdefs.TopicState}, {"event=uplink-gone", errdefs.TopicUplink},
}

func (d *doctor) logPart(ctx context.Context, w io.Writer) error {
	found := false
	for _, name := range append([]string{filepath.Join(d.stateDir, daemonLog)}, d.logs...) {
		text, err := tail(name)
		if err != nil {
			continue // most daemons log elsewhere
		}
		found = true
		fmt.Fprintf(w, "%s:\n%s\n", name, text)
		d.lookInLog(text)
	}
	if found {
		return nil
	}
	out, err := exec.CommandContext(ctx, "journalctl", "--user", "--unit", "usernet", "--lines", fmt.Sprint(logLines),
		"--no-pager",
		"--quiet").Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		fmt.Fprintln(w, "There is neither a daemon.log in the state directory nor a journal of a service usernet: name it by --log.")
		return nil
	}
	fmt.Fprintf(w, "journal of the user service usernet:\n%s", out)
	d.lookInLog(string(out))
	return nil
}

// lookInLog notes the problems that a log names, once each.
func (d *doctor) lookInLog(text string) {
	for _, l := range logTopics {
		if n := strings.Count(text, l.event); n > 0 {
			d.finds(l.topic, "the log has %s %d times", l.event, n)
		}
	}
}

// tail is the end of a file.
func tail(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, errors.New("it is no file"))
	}
	b := make([]byte, min(info.Size(), logBytes))
	n, err := f.ReadAt(b, info.Size()-int64(len(b)))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n"), nil
}
