package openmetrics

import (
	"bufio"
	"fmt"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// Type is what a family's numbers are.
type Type string

// The types.
const (
	Counter    Type = "counter" // only grows; its samples end with _total
	Gauge      Type = "gauge"
	Histograms Type = "histogram"
)

// Family is a metric with all its samples. Name has no _total, and ends with Unit where there is one.
type Family struct {
	Name, Help string
	Type       Type
	Unit       string // seconds, bytes; "": none
	Samples    []Sample
}

// Sample is one number, or one histogram, with its labels: names and values in turn.
type Sample struct {
	Labels    []string
	Value     float64
	Durations *Durations // of a histogram
}

// Add adds a sample with labels, names and values in turn.
func (f *Family) Add(value float64, labels ...string) {
	f.Samples = append(f.Samples, Sample{Labels: labels, Value: value})
}

// Format is how metrics are written.
type Format int

// The formats.
const (
	Text Format = iota // Prometheus's text format 0.0.4
	Open               // OpenMetrics 1.0.0
)

// ContentType is the format's, as HTTP has it.
func (f Format) ContentType() string {
	if f == Open {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// Accepted is the format that a client wants by its header Accept: OpenMetrics where it names that.
func Accepted(accept string) Format {
	for part := range strings.SplitSeq(accept, ",") {
		if kind, params, err := mime.ParseMediaType(part); err == nil && kind == "application/openmetrics-text" &&
			params["q"] != "0" {
			return Open
		}
	}
	return Text
}

// Write writes families, those without samples left out.
func Write(w io.Writer, families []Family, f Format) error {
	b := &writer{Writer: bufio.NewWriter(w), format: f}
	for _, each := range families {
		if len(each.Samples) > 0 {
			b.family(each)
		}
	}
	if f == Open {
		b.WriteString("# EOF\n")
	}
	return b.Flush()
}

type writer struct {
	*bufio.Writer // keeps its first error until Flush
	format        Format
}

func (w *writer) family(f Family) {
	name, total := f.Name, ""
	if f.Type == Counter {
		total = "_total"
		if w.format == Text {
			name += total
		}
	}
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, escape(f.Help), name, f.Type)
	if f.Unit != "" && w.format == Open {
		fmt.Fprintf(w, "# UNIT %s %s\n", name, f.Unit)
	}
	for _, s := range f.Samples {
		if s.Durations != nil {
			w.histogram(f.Name, s)
			continue
		}
		w.sample(f.Name+total, s.Labels, s.Value)
	}
}

func (w *writer) histogram(name string, s Sample) {
	n := uint64(0)
	for i, count := range s.Durations.Buckets {
		n += count
		bound := "+Inf"
		if i < len(bounds) {
			bound = number(bounds[i].Seconds())
			if w.format == Open && !strings.ContainsAny(bound, ".e") {
				bound += ".0" // as OpenMetrics wants it: a float
			}
		}
		w.sample(name+"_bucket", append(slices.Clone(s.Labels), "le", bound), float64(n))
	}
	w.sample(name+"_sum", s.Labels, s.Durations.Sum.Seconds())
	w.sample(name+"_count", s.Labels, float64(n))
}

func (w *writer) sample(name string, labels []string, value float64) {
	w.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		fmt.Fprintf(w, `%s%s="%s"`, sep, labels[i], escape(labels[i+1]))
	}
	if len(labels) > 1 {
		w.WriteString("}")
	}
	fmt.Fprintf(w, " %s\n", number(value))
}

func number(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

// escape makes a text one that labels and help can have.
func escape(s string) string { return escapes.Replace(strings.ToValidUTF8(s, "\ufffd")) }

var escapes = strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
