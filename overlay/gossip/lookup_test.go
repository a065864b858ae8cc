package gossip

import (
	"testing"
	"time"
)

// BenchmarkMerge takes over a row that is news, and one that is known.
func BenchmarkMerge(b *testing.B) {
	const rows = 20_000
	messages := make([][]byte, rows)
	for i := range messages {
		messages[i] = appendRow(nil, endpointRow(i))
	}
	s := newState(nil)
	merge := func(i int) {
		r := reader{b: messages[i%rows]}
		row, err := r.row()
		if err != nil {
			b.Fatal(err)
		}
		s.merge(row, time.Time{})
	}
	b.Run("news", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if i%rows == 0 {
				b.StopTimer()
				s = newState(nil)
				b.StartTimer()
			}
			merge(i)
		}
	})
	for i := range rows {
		merge(i)
	}
	b.Run("known", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			merge(i)
		}
	})
	b.Run("visible", func(b *testing.B) {
		keys := make([]string, rows)
		for i := range keys {
			keys[i] = endpointRow(i).Key
		}
		for i := 0; b.Loop(); i++ {
			if _, is := s.visible(keys[i%rows]); !is {
				b.Fatal("it is not there")
			}
		}
	})
}
