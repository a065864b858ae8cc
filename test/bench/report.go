package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// key names one number.
type key struct {
	tool, path string
	mtu        int
}

// A report is what was measured.
type report struct {
	Machine string            `json:"machine"`
	Date    string            `json:"date"`
	Seconds int               `json:"seconds"`
	Runs    int               `json:"runs"`
	Tools   map[string]string `json:"tools"` // versions
	Idle    idleUse           `json:"idle"`
	Results []result          `json:"results"`

	samples map[key][]float64
	order   []key
}

// A result is one number with the measurements that it is the median of.
type result struct {
	Tool    string    `json:"tool"`
	Path    string    `json:"path,omitempty"`
	MTU     int       `json:"mtu,omitempty"`
	Gbits   float64   `json:"gbit_per_s"`
	Samples []float64 `json:"samples"`
	// Ratio is usernet's rate over the better of the other tools', where there are any.
	Ratio float64 `json:"ratio,omitempty"`
}

func (r *report) add(k key, rate float64) {
	if r.samples[k] == nil {
		r.order = append(r.order, k)
	}
	r.samples[k] = append(r.samples[k], rate)
	fmt.Fprintf(os.Stderr, "bench:   %-36s %6.2f Gbit/s\n", strings.TrimSpace(k.tool+" "+k.path), rate)
}

// rate is the median, or 0 where nothing was measured.
func (r *report) rate(tool, path string, mtu int) float64 {
	if s := r.samples[key{tool, path, mtu}]; len(s) > 0 {
		return median(s)
	}
	return 0
}

// ratio is usernet's rate over the better of the peers', or 0.
func (r *report) ratio(path string, mtu int) float64 {
	if best := max(r.rate("slirp4netns", path, mtu), r.rate("pasta", path, mtu)); best > 0 {
		return r.rate("usernet", path, mtu) / best
	}
	return 0
}

// write prints a markdown table, and all numbers to a file where one is named.
func (r *report) write(out io.Writer, file string) error {
	number := func(rate float64, format string) string {
		if rate == 0 {
			return "–"
		}
		return fmt.Sprintf(format, rate)
	}
	fmt.Fprintln(out, "| one TCP stream, Gbit/s | MTU | usernet | slirp4netns | pasta | usernet / better peer |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|")
	for _, mtu := range mtus {
		for _, path := range paths {
			fmt.Fprintf(out, "| %s | %d | %s | %s | %s | %s |\n", path, mtu, number(r.rate("usernet", path, mtu), "%.1f"),
				number(r.rate("slirp4netns", path, mtu), "%.1f"), number(r.rate("pasta", path, mtu), "%.1f"),
				number(r.ratio(path, mtu), "%.1f×"))
		}
	}
	fmt.Fprintf(out, "\nLimits in the same sitting: the kernel's loopback %s Gbit/s, veth pairs and a kernel bridge (MTU 1500) %s Gbit/s.\n",
		number(r.rate(loopback, "", 0), "%.1f"), number(r.rate(bridge, "", 1500), "%.1f"))
	fmt.Fprintf(out, "The daemon with two idle containers: %.1f MiB resident, %.2f %% of one processor, %d threads.\n",
		r.Idle.RSSMiB, r.Idle.CPUPercent, r.Idle.Threads)
	fmt.Fprintf(out, "\nMedians of %d runs of %d s each, %s, %s.\n", r.Runs, r.Seconds, r.Date, r.Machine)
	var versions []string
	for _, name := range []string{"usernet", "slirp4netns", "pasta", "iperf3"} {
		if v := r.Tools[name]; v != "" {
			versions = append(versions, v)
		}
	}
	fmt.Fprintf(out, "Versions: %s. Published ports are measured from the host's loopback, where pasta splices.\n", strings.Join(versions, "; "))
	if file == "" {
		return nil
	}
	for _, k := range r.order {
		one := result{Tool: k.tool, Path: k.path, MTU: k.mtu, Gbits: median(r.samples[k]), Samples: r.samples[k]}
		if k.tool == "usernet" {
			one.Ratio = r.ratio(k.path, k.mtu)
		}
		r.Results = append(r.Results, one)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// machine describes where this runs.
func machine() string {
	model := runtime.GOARCH
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(cpu), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	var name unix.Utsname
	unix.Uname(&name)
	return fmt.Sprintf("%d processors (%s), Linux %s, %s", runtime.NumCPU(), model, unix.ByteSliceToString(name.Release[:]), runtime.Version())
}
