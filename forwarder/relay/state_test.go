package relay

import (
	"encoding/json"
	"slices"
	"testing"
)

// TestStatesKeepTheirDescriptors sends states of each shape as one process would to another.
func TestStatesKeepTheirDescriptors(t *testing.T) {
	for _, test := range []struct {
		pending [2]int64
		fds     []int
	}{
		{[2]int64{0, 0}, []int{10, 11}},
		{[2]int64{5, 0}, []int{10, 11, 20}},
		{[2]int64{0, 7}, []int{10, 11, 21}},
		{[2]int64{5, 7}, []int{10, 11, 20, 21}},
	} {
		st := State{BytesIn: 1, BytesOut: 2}
		for i := range st.Directions {
			st.Directions[i] = Direction{FD: 10 + i, Pending: -1, Bytes: test.pending[i], Ended: i == 1}
			if test.pending[i] > 0 {
				st.Directions[i].Pending = 20 + i
			}
		}
		if got := st.FDs(); !slices.Equal(got, test.fds) {
			t.Errorf("%v: descriptors %v, want %v", test.pending, got, test.fds)
		}
		b, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range [][]int{nil, test.fds[:len(test.fds)-1], append(slices.Clone(test.fds), 9)} {
			if got.SetFDs(wrong) == nil {
				t.Errorf("%v: %d descriptors are taken for %d", test.pending, len(wrong), len(test.fds))
			}
		}
		if err := got.SetFDs(test.fds); err != nil || got != st {
			t.Errorf("%v: %+v became %+v, %v", test.pending, st, got, err)
		}
	}
}
