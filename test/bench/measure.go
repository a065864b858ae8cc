package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The paths that are measured, by the direction in which the bytes flow.
const (
	toHost       = "container → host"
	fromHost     = "host → container"
	between      = "container → container"
	publishedIn  = "published port, to the container"
	publishedOut = "published port, from the container"
	loopback     = "kernel: loopback"
	bridge       = "kernel: veth pairs and bridge"
)

var (
	paths = []string{toHost, fromHost, between, publishedIn, publishedOut}
	mtus  = []int{1500, 65520}
)

// measure does it all.
func (w *world) measure() (*report, error) {
	r := &report{Machine: machine(), Date: time.Now().UTC().Format("2006-01-02"), Seconds: w.options.seconds,
		Runs: w.options.runs, Tools: map[string]string{}, samples: map[key][]float64{}}
	r.Tools["iperf3"] = firstLine(w.run("iperf3", "--version"))
	var err error
	if r.Idle, err = w.idle(); err != nil {
		return nil, err
	}
	port := w.freePort()
	if _, err := w.start("iperf3", "-s", "-p", strconv.Itoa(port)); err != nil {
		return nil, err
	}
	if err := wait("iperf3 on the host", func() bool { return listening(os.Getpid(), port) }); err != nil {
		return nil, err
	}
	all := tools()
	for _, t := range all {
		r.Tools[t.name] = t.version(w)
	}
	for run := range w.options.runs {
		if err := w.kernel(r, port); err != nil {
			return nil, err
		}
		for _, mtu := range mtus {
			for _, t := range all {
				fmt.Fprintf(os.Stderr, "bench: run %d of %d: %s, MTU %d\n", run+1, w.options.runs, t.name, mtu)
				if err := w.tool(r, t, mtu, port); err != nil {
					return nil, fmt.Errorf("%s at MTU %d: %w", t.name, mtu, err)
				}
			}
		}
	}
	return r, nil
}

// tool measures one tool's paths once.
func (w *world) tool(r *report, t tool, mtu, port int) error {
	s, err := t.connect(w, mtu)
	if err != nil {
		return err
	}
	defer s.close()
	if s.published != 0 {
		if err := wait("the published port", func() bool { return listening(os.Getpid(), s.published) }); err != nil {
			return err
		}
	}
	for _, path := range paths {
		var rate float64
		switch path {
		case toHost, fromHost:
			rate, err = w.iperf(s.prefix, host, port, path == fromHost)
		case between:
			if s.sibling == "" {
				continue
			}
			rate, err = w.iperf(s.prefix, s.sibling, 5201, false)
		case publishedIn, publishedOut:
			rate, err = w.iperf(nil, "127.0.0.1", s.published, path == publishedOut)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		r.add(key{t.name, path, mtu}, rate)
	}
	return nil
}

// bridgeScript connects two network namespaces with veth pairs and a kernel bridge, and measures.
const bridgeScript = `
set -e
unshare -n sleep 1000 & a=$!
unshare -n iperf3 -s >/dev/null & b=$!
trap 'kill $a $b' EXIT
ip link add br0 type bridge
ip link set br0 up
for p in $a $b; do
	until [ "$(readlink /proc/$p/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
	ip link add veth$p type veth peer name eth0 netns $p
	ip link set veth$p master br0 up
done
nsenter -n -t $a sh -c 'ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up'
nsenter -n -t $b sh -c 'ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up'
nsenter -n -t $a "$@"
`

// kernel measures what the kernel does alone.
func (w *world) kernel(r *report, port int) error {
	rate, err := w.iperf(nil, "127.0.0.1", port, false)
	if err != nil {
		return err
	}
	r.add(key{loopback, "", 0}, rate)
	rate, err = w.iperf([]string{"unshare", "-Urn", "sh", "-c", bridgeScript, "sh"}, "10.0.0.2", 5201, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no kernel bridge on this machine:", err)
		return nil
	}
	r.add(key{bridge, "", 1500}, rate)
	return nil
}

// idleUse is what the daemon needs while two containers do nothing.
type idleUse struct {
	RSSMiB     float64 `json:"rss_mib"`
	CPUPercent float64 `json:"cpu_percent"`
	Threads    int     `json:"threads"`
}

// idle watches a daemon with two idle containers.
func (w *world) idle() (use idleUse, err error) {
	fmt.Fprintln(os.Stderr, "bench: the daemon with two idle containers")
	daemon, err := startDaemon(w)
	if err != nil {
		return use, err
	}
	defer w.stop(daemon)
	for _, name := range []string{"one", "two"} {
		if _, err := w.run(w.binary, "run", "-d", "--name", name, "--", "sleep", "100000"); err != nil {
			return use, err
		}
	}
	defer w.run(w.binary, "rm", "-f", "one", "two")
	time.Sleep(2 * time.Second) // what starting them takes is not idle
	before, err := cpuTicks(daemon)
	if err != nil {
		return use, err
	}
	time.Sleep(w.options.idle)
	after, err := cpuTicks(daemon)
	if err != nil {
		return use, err
	}
	const ticksPerSecond = 100 // USER_HZ, on every architecture that Go runs on
	use.CPUPercent = float64(after-before) / ticksPerSecond / w.options.idle.Seconds() * 100
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", daemon.Process.Pid))
	for _, line := range strings.Split(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		number, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			use.RSSMiB = float64(number) / 1024
		case "Threads":
			use.Threads = number
		}
	}
	return use, err
}

// cpuTicks is the processor time that a process has used (proc_pid_stat(5), fields 14 and 15).
func cpuTicks(cmd *exec.Cmd) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return user + system, err
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
