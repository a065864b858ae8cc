package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// key names one number.
type key struct {
	tool, group, name string
	mtu               int
}

// A report is what was measured.
type report struct {
	Machine string            `json:"machine"`
	Date    string            `json:"date"`
	Seconds int               `json:"seconds"`
	Runs    int               `json:"runs"`
	Tools   map[string]string `json:"tools"`  // versions
	Others  float64           `json:"others"` // largest share of the processors that other programs had, 0 to 1
	Results []result          `json:"results"`

	samples map[key][]float64
	lines   []cell // in order of the first number
}

// A result is one number with the measurements that it is the median of.
type result struct {
	Tool    string    `json:"tool"`
	Group   string    `json:"group"`
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	MTU     int       `json:"mtu,omitempty"`
	Value   float64   `json:"value"`
	Samples []float64 `json:"samples"`
	Spread  float64   `json:"spread"` // half of what lies between the least and the largest, by the median
	// Ratio is how many times better usernet is than the best of the other tools, where there are any.
	Ratio float64 `json:"ratio,omitempty"`
}

func (r *report) add(tool string, c cell, value float64) {
	k := key{tool, c.group, c.name, c.mtu}
	if !r.has(c) {
		r.lines = append(r.lines, c)
	}
	r.samples[k] = append(r.samples[k], value)
	fmt.Fprintf(os.Stderr, "bench:   %-70s %10.2f %s\n", tool+": "+c.name, value, c.unit)
}

// noteOthers looks at what other programs use now.
func (r *report) noteOthers() {
	share := others()
	if share > 0.05 {
		fmt.Fprintf(os.Stderr, "bench: other programs use %.0f %% of the processors\n", share*100)
	}
	r.Others = max(r.Others, share)
}

// has says whether there is a line for c.
func (r *report) has(c cell) bool {
	for _, l := range r.lines {
		if l.group == c.group && l.name == c.name && l.mtu == c.mtu {
			return true
		}
	}
	return false
}

// value is the median, or 0 where nothing was measured.
func (r *report) value(tool string, c cell) float64 {
	if s := r.samples[key{tool, c.group, c.name, c.mtu}]; len(s) > 0 {
		return median(s)
	}
	return 0
}

// spread is half of what lies between the least and the largest of several values, by their median.
func spread(values []float64) float64 {
	m := median(values)
	if m == 0 {
		return 0
	}
	return (slices.Max(values) - slices.Min(values)) / 2 / m
}

// peers are the tools beside usernet.
var peers = []string{"slirp4netns", "pasta", "rootlesskit"}

// reported are all whose numbers are written to a file.
func reported() []string {
	list := append([]string{"usernet", kernel}, peers...)
	for _, p := range pairings {
		list = append(list, p.tool)
	}
	return list
}

// ratio is how many times better usernet is than the best peer, or 0.
func (r *report) ratio(c cell) float64 {
	own, best := r.value("usernet", c), 0.0
	for _, p := range peers {
		if v := r.value(p, c); v > 0 && (best == 0 || (v < best) == c.lower) {
			best = v
		}
	}
	switch {
	case own == 0 || best == 0:
		return 0
	case c.lower:
		return best / own
	}
	return own / best
}

// write prints the tables, and writes the files that were asked for.
func (r *report) write(out io.Writer, o options) error {
	if share := r.Others * 100; share > o.others {
		return fmt.Errorf(
			"other programs used up to %.0f %% of the processors between the measurements, so there are no tables: "+
				"run it on a quiet machine, or allow it with --others %.0f",
			share,
			math.Ceil(share),
		)
	}
	var text strings.Builder
	r.tables(&text)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err
	}
	if o.report != "" {
		if err := os.WriteFile(o.report, []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, []byte(r.plot()), 0o644); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	for _, c := range r.lines {
		for _, tool := range reported() {
			s := r.samples[key{tool, c.group, c.name, c.mtu}]
			if len(s) == 0 {
				continue
			}
			one := result{
				Tool:    tool,
				Group:   c.group,
				Name:    c.name,
				Unit:    c.unit,
				MTU:     c.mtu,
				Value:   median(s),
				Samples: s,
				Spread:  spread(s),
			}
			if tool == "usernet" {
				one.Ratio = r.ratio(c)
			}
			r.Results = append(r.Results, one)
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(b, '\n'), 0o644)
}

// tables prints all that was measured, and how.
func (r *report) tables(w io.Writer) {
	for _, group := range []string{groupTCP, groupCPU, groupOther, groupCalls} {
		r.compared(w, group)
		r.pairTable(w, group, r.measured)
	}
	r.pairTable(w, groupStart, r.measured)
	for _, group := range []string{groupDNS, groupScale} {
		r.alone(w, group)
	}
	fmt.Fprintf(
		w,
		"Medians of %d runs of %d s each with half of the range (±), the tools in turns, %s, %s; other programs used at most %.0f %% of the processors.\n",
		r.Runs,
		r.Seconds,
		r.Date,
		r.Machine,
		r.Others*100,
	)
	var versions []string
	for _, name := range append([]string{"usernet", "iperf3"}, peers...) {
		if v := r.Tools[name]; v != "" {
			versions = append(versions, v)
		}
	}
	fmt.Fprintf(
		w,
		"Versions: %s. Published ports are measured from the host's loopback, where pasta splices.\n",
		strings.Join(versions, "; "),
	)
}

// number is a value as tables have it.
func number(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// measured is a tool's number with half of its range.
func (r *report) measured(tool string, c cell) string {
	text := number(r.value(tool, c))
	if s := r.samples[key{tool, c.group, c.name, c.mtu}]; len(s) > 1 {
		text += fmt.Sprintf(" ±%.0f %%", spread(s)*100)
	}
	return text
}

// compared prints the table of a group in which usernet is beside other tools.
func (r *report) compared(w io.Writer, group string) {
	lines := r.group(group)
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(
		w,
		"### %s\n\n| | unit | MTU | usernet | slirp4netns | pasta | RootlessKit | usernet / best peer | kernel |\n|---|---|---|---|---|---|---|---|---|\n",
		group,
	)
	for _, c := range lines {
		ratio := "–"
		if v := r.ratio(c); v > 0 {
			ratio = fmt.Sprintf("%.2f×", v)
		}
		fmt.Fprintf(w, "| %s | %s | %d | %s | %s | %s | %s | %s | %s |\n", c.name, c.unit, c.mtu,
			r.measured("usernet", c), r.measured("slirp4netns", c), r.measured("pasta", c),
			r.measured("rootlesskit", c), ratio, r.measured(kernel, c))
	}
	fmt.Fprintln(w)
}

// alone prints the table of a group that only usernet was measured for.
func (r *report) alone(w io.Writer, group string) {
	lines := r.group(group)
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "### %s\n\n| | unit | usernet |\n|---|---|---|\n", group)
	for _, c := range lines {
		v := r.value("usernet", c)
		text := number(v)
		if v == 0 {
			text = "0"
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", c.name, c.unit, text)
	}
	fmt.Fprintln(w)
}

// group is the lines of one table.
func (r *report) group(name string) (lines []cell) {
	for _, mtu := range []int{1500, 65520, 0} {
		for _, c := range r.lines {
			if c.group == name && c.mtu == mtu {
				lines = append(lines, c)
			}
		}
	}
	return lines
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
	return fmt.Sprintf(
		"%d processors (%s), Linux %s, %s",
		runtime.NumCPU(),
		model,
		unix.ByteSliceToString(name.Release[:]),
		runtime.Version(),
	)
}
