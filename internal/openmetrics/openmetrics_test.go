package openmetrics

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHistogramCounts(t *testing.T) {
	var h Histogram
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, d := range []time.Duration{0, 100 * time.Microsecond, 3 * time.Millisecond, time.Hour} {
				h.Observe(d)
			}
		})
	}
	wg.Wait()
	d := h.Load()
	if d.Buckets[0] != 8 || d.Buckets[5] != 4 || d.Buckets[len(bounds)] != 4 {
		t.Errorf("buckets: %v", d.Buckets)
	}
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func families() []Family {
	var h Histogram
	h.Observe(2 * time.Millisecond)
	d := h.Load()
	count := Family{Name: "x_frames", Help: "Of \"all\".", Type: Counter}
	count.Add(3, "network", "a\nb\"c\\", "reason", "mac")
	return []Family{count, {Name: "x_empty", Type: Gauge},
		{Name: "x_time_seconds", Help: "Time.", Type: Histograms, Unit: "seconds", Samples: []Sample{{Durations: &d}}}}
}

func TestFormats(t *testing.T) {
	for _, test := range []struct {
		format Format
		want   []string
		last   string
	}{
		{Text, []string{"# TYPE x_frames_total counter", "le=\"1\"} 1\n"}, "x_time_seconds_count 1\n"},
		{Open, []string{"# TYPE x_frames counter", "# UNIT x_time_seconds seconds", "le=\"1.0\"} 1\n"}, "# EOF\n"},
	} {
		var b strings.Builder
		if err := Write(&b, families(), test.format); err != nil {
			t.Fatal(err)
		}
		for _, want := range append(test.want, `x_frames_total{network="a\nb\"c\\",reason="mac"} 3`,
			"x_time_seconds_sum 0.002\n", "le=\"0.001\"} 0\n", "le=\"+Inf\"} 1\n") {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%q is missing in\n%s", want, b.String())
			}
		}
		if !strings.HasSuffix(b.String(), test.last) || strings.Contains(b.String(), "x_empty") {
			t.Errorf("%s", b.String())
		}
	}
}

func TestAccepted(t *testing.T) {
	for accept, want := range map[string]Format{
		"": Text, "*/*": Text, "text/plain": Text, "application/openmetrics-text;q=0": Text,
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2": Open, "application/openmetrics-text": Open,
	} {
		if got := Accepted(accept); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}
