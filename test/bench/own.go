package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	groupDNS   = "DNS"
	groupScale = "Scale and start"
)

// own measures what only usernet has, or does not compare.
func (w *world) own(r *report, wanted func(string) bool) error {
	for _, part := range []struct {
		group   string
		measure func(*world, *report) error
	}{{groupDNS, (*world).dns}, {groupScale, (*world).scale}} {
		if !wanted(part.group) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", part.group)
		if err := part.measure(w, r); err != nil {
			return fmt.Errorf("%s: %w", part.group, err)
		}
	}
	return nil
}

var (
	dnsRate = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
	dnsLost = regexp.MustCompile(`Queries lost:\s+(\d+)`)
)

// dns measures the embedded server with dnsperf, where that is installed.
func (w *world) dns(r *report) error {
	if _, err := exec.LookPath("dnsperf"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: dnsperf is not installed, so DNS is not measured")
		return nil
	}
	daemon, err := startDaemon(w)
	if err != nil {
		return err
	}
	defer w.stop(daemon)
	for _, args := range [][]string{
		{"network", "create", "names"},
		{"run", "-d", "--name", "web", "--network", "names", "--", "sleep", "100000"},
		{"run", "-d", "--name", "client", "--network", "names", "--", "sleep", "100000"},
	} {
		if _, err := w.run(w.binary, args...); err != nil {
			return err
		}
	}
	defer w.run(w.binary, "rm", "-f", "web", "client")
	questions := filepath.Join(w.dir, "questions")
	if err := os.WriteFile(questions, []byte("web A\nweb.names A\n"), 0o644); err != nil {
		return err
	}
	for range w.options.runs {
		for _, test := range []struct {
			name string
			args []string
		}{{"questions for a container's name", nil}, {"the same, held at 20,000 per second", []string{"-Q", "20000"}}} {
			args := append(
				[]string{
					"exec",
					"client",
					"dnsperf",
					"-s",
					"127.0.0.11",
					"-d",
					questions,
					"-c",
					"4",
					"-l",
					strconv.Itoa(w.options.seconds),
				},
				test.args...)
			out, err := w.run(w.binary, args...)
			rate, lost := dnsRate.FindStringSubmatch(out), dnsLost.FindStringSubmatch(out)
			if err != nil || rate == nil || lost == nil {
				return fmt.Errorf("dnsperf: %w: %s", err, out)
			}
			answered, _ := strconv.ParseFloat(rate[1], 64)
			missing, _ := strconv.ParseFloat(lost[1], 64)
			r.add("usernet", cell{group: groupDNS, name: test.name + ", answered", unit: "per second"}, answered)
			r.add("usernet", cell{group: groupDNS, name: test.name + ", lost", unit: "queries", lower: true}, missing)
		}
	}
	return nil
}

// scale measures what containers cost.
func (w *world) scale(r *report) error {
	daemon, err := startDaemon(w)
	if err != nil {
		return err
	}
	defer w.stop(daemon)
	pid := daemon.Process.Pid
	if _, err := w.run(w.binary, "network", "create", "crowd"); err != nil {
		return err
	}
	scaled := func(name, unit string, n int, value float64) {
		r.add(
			"usernet",
			cell{group: groupScale, name: fmt.Sprintf("%s, %d containers", name, n), unit: unit, lower: true},
			value,
		)
	}
	counts := []int{1, 2, 10, 100}
	if w.options.full {
		counts = append(counts, 500)
	}
	have := 0
	var names []string
	for _, n := range counts {
		began := time.Now()
		added := n - have
		for ; have < n; have++ {
			name := fmt.Sprint("box", have)
			_, err := w.run(w.binary, "run", "-d", "--name", name, "--network", "crowd", "--", "sleep", "100000")
			if err != nil {
				return err
			}
			names = append(names, name)
		}
		scaled("time to start one more", "ms", n, float64(time.Since(began).Milliseconds())/float64(added))
		time.Sleep(time.Second) // what starting them takes is not idle
		before, err := cpuTicks(pid)
		if err != nil {
			return err
		}
		time.Sleep(w.options.idle)
		after, err := cpuTicks(pid)
		if err != nil {
			return err
		}
		status := processStatus(pid)
		scaled("idle: processor", "% of one", n, float64(after-before)/ticksPerSecond/w.options.idle.Seconds()*100)
		scaled("resident memory", "MiB", n, float64(status["VmRSS"])/1024)
		scaled("threads", "", n, float64(status["Threads"]))
	}
	if err := w.crowd(r, pid, have); err != nil {
		return err
	}
	w.run(w.binary, append([]string{"rm", "-f"}, names...)...)
	return w.startTime(r)
}

// crowd measures a pair of containers among many idle ones, and what a broadcast to all costs.
func (w *world) crowd(r *report, pid, n int) error {
	_, err := w.run(w.binary, "run", "-d", "--name", "server", "--network", "crowd", "--", "iperf3", "-s")
	if err != nil {
		return err
	}
	defer w.run(w.binary, "rm", "-f", "server")
	rate, err := w.iperf([]string{w.binary, "exec", "box0"}, "server", iperfPort, 1, false)
	if err != nil {
		return err
	}
	r.add(
		"usernet",
		cell{group: groupScale, name: fmt.Sprintf("container → container among %d", n), unit: "Gbit/s"},
		rate,
	)
	before, err := cpuTicks(pid)
	if err != nil {
		return err
	}
	const pings = 1000
	// Nobody answers a broadcast unless he was told to; what counts is what the daemon does for each.
	w.run(
		w.binary,
		"exec",
		"box0",
		"ping",
		"-b",
		"-q",
		"-c",
		strconv.Itoa(pings),
		"-i",
		"0.001",
		"-W",
		"1",
		"255.255.255.255",
	)
	after, err := cpuTicks(pid)
	r.add(
		"usernet",
		cell{
			group: groupScale,
			name:  fmt.Sprintf("processor time of a broadcast to %d containers", n),
			unit:  "µs",
			lower: true,
		},
		float64(after-before)/ticksPerSecond/pings*1e6,
	)
	return err
}

// startTime compares a whole container's life with that of the namespaces alone.
func (w *world) startTime(r *report) error {
	for range 20 {
		for _, test := range []struct {
			name string
			args []string
		}{
			{"usernet run --rm -- true", []string{w.binary, "run", "--rm", "--", "true"}},
			{"unshare -Urnmpf true", []string{"unshare", "-Urnmpf", "true"}},
		} {
			began := time.Now()
			if _, err := w.run(test.args[0], test.args[1:]...); err != nil {
				return err
			}
			r.add(
				"usernet",
				cell{group: groupScale, name: test.name, unit: "ms", lower: true},
				float64(time.Since(began).Microseconds())/1000,
			)
		}
	}
	return nil
}

// processStatus reads the numbers of /proc/PID/status (proc_pid_status(5)).
func processStatus(pid int) map[string]int {
	values := map[string]int{}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(text), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB")); err == nil {
			values[name] = n
		}
	}
	return values
}
