package main

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "128MiB": 128 << 20, "128m": 128 << 20,
		"1g": 1 << 30, "": -1, "x": -1, "-1": -1, "1.5KiB": 1536} {
		n := int64(-1)
		err := byteSize{&n}.Set(text)
		if (err == nil) != (want >= 0) || n != want {
			t.Errorf("%q is %d (%v), want %d", text, n, err, want)
		}
	}
	n := int64(128 << 20)
	if s := (byteSize{&n}).String(); s != "128MiB" {
		t.Errorf("128 MiB is %s", s)
	}
}

func TestGoMemoryLimitLeavesRoom(t *testing.T) {
	for _, test := range []struct {
		n       int64
		limited bool
		want    int64
	}{{1000, true, 750}, {1000, false, 500}} {
		if got := goMemoryLimit(test.n, test.limited); got != test.want {
			t.Errorf("of %d, limited %t: %d", test.n, test.limited, got)
		}
	}
}
