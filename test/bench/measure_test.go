package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestReportComparesWithTheBetterPeer(t *testing.T) {
	r := &report{samples: map[key][]float64{
		{"usernet", toHost, 1500}: {11}, {"slirp4netns", toHost, 1500}: {1}, {"pasta", toHost, 1500}: {2},
	}}
	var out strings.Builder
	if err := r.write(&out, ""); err != nil {
		t.Fatal(err)
	}
	if want := "| container → host | 1500 | 11.0 | 1.0 | 2.0 | 5.5× |"; !strings.Contains(out.String(), want) {
		t.Errorf("the table lacks %s:\n%s", want, &out)
	}
}
