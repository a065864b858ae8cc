package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Names of columns that several tables have.
const (
	columnMore    = "one more, ms"
	columnRestart = "daemon ended and serving again, ms"
)

// milliseconds is the median of some times.
func milliseconds(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2]) / float64(time.Millisecond)
}

// format makes a table for people.
func format(t table, rows []row) string {
	var columns []string
	for _, r := range rows {
		for name := range r.cells {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	slices.Sort(columns)
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s |", t.name)
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString(" processor time of each added, µs | memory, MiB |\n|")
	b.WriteString(strings.Repeat("---|", len(columns)+3) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d |", r.size)
		if r.left != "" {
			fmt.Fprintf(&b, " %s |\n", r.left)
			continue
		}
		for _, c := range columns {
			fmt.Fprintf(&b, " %.2f |", r.cells[c])
		}
		fmt.Fprintf(&b, " %.0f | %.1f |\n", float64(r.processor)/float64(time.Microsecond), float64(r.memory)/(1<<20))
	}
	return b.String()
}
