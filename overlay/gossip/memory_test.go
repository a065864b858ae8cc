package gossip

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// BenchmarkReplica measures the memory of a row in a host's replica: with bytes of its own, as each host has it, and
// with those of one row that all replicas of a process share, which is the least that a simulation of many hosts needs.
func BenchmarkReplica(b *testing.B) {
	const rows, recordLen = 100_000, 450 // as in package sim
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	owners := make([]overlay.HostID, 1000)
	for i := range owners {
		owners[i] = overlay.HostID(fmt.Sprintf("%032x", i+1))
	}
	row := func(i int) table.Row {
		key := fmt.Sprintf("eps/%064x/10.%d.%d.%d", i%16, i>>16&255, i>>8&255, i&255)
		value := []byte(strings.Repeat("x", recordLen))
		return table.Row{Key: key, Value: value, Owner: owners[i%len(owners)], Incarnation: 1, Version: 1}
	}
	shared := make([]table.Row, rows)
	for i := range shared {
		shared[i] = row(i)
	}
	for name, of := range map[string]func(int) table.Row{
		"own":    row,
		"shared": func(i int) table.Row { return shared[i] },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				s := newState()
				for i := range rows {
					s.merge(of(i), time.Time{})
				}
				b.ReportMetric(float64(heap()-before)/rows, "B/row")
				runtime.KeepAlive(s)
			}
		})
	}
	runtime.KeepAlive(shared)
}
