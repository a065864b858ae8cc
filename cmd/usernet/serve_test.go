package main

import "testing"

func TestHalfOfSmallMachinesOnlyIsLeftToOthers(t *testing.T) {
	for _, test := range []struct {
		processors int
		variable   string
		want       int
	}{
		{1, "", 1},
		{2, "", 1},
		{3, "", 1},
		{4, "", 2},
		{5, "", 0},
		{64, "", 0},
		{2, "2", 0},
		{64, "3", 0},
	} {
		if got := processorsFor(test.processors, test.variable); got != test.want {
			t.Errorf("processorsFor(%d, %q) = %d, want %d", test.processors, test.variable, got, test.want)
		}
	}
}
