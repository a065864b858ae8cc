package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/gossip/memnet"
	"github.com/usernet/usernet/overlay/table"
)

// nowhere is a store that holds nothing: the replica on disk is no memory.
type nowhere struct{ network.Store }

// View implements network.Store.
func (nowhere) View(context.Context, func(network.Tx) error) error { return nil }

// Update implements network.Store.
func (nowhere) Update(context.Context, func(network.Tx) error) (network.Revision, error) {
	return 0, nil
}

// endpointRow is the row of one of many endpoints on 16 networks and 1000 hosts, as a daemon writes it.
func endpointRow(i int) table.Row {
	id := func(kind string, i int) string {
		return fmt.Sprintf("%016x%048x", identity(kind, ""), mix(uint64(i+1)))
	}
	host := overlay.HostID(fmt.Sprintf("%032x", mix(uint64(i%1000+1))))
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	const started = 1764500000000000000 // nanoseconds since 1970
	value, err := overlay.Encode(overlay.Endpoint{
		Network: id("network", i%16), Addrs: []netip.Addr{addr}, MAC: overlay.MAC{2, byte(i >> 8), byte(i)},
		Host: host, Incarnation: started, EndpointID: id("endpoint", i), Container: id("container", i), Running: true,
		Name: fmt.Sprintf("project-service-%d", i), Names: []string{"service", fmt.Sprintf("service-%d", i)},
	})
	if err != nil {
		panic(err)
	}
	return table.Row{
		Key: overlay.EndpointKey(id("network", i%16), addr), Value: value, Owner: host, Incarnation: started,
		Version: 1, Claimed: started,
	}
}

// BenchmarkReplica measures the memory of an endpoint on one host: of what gossip has, and of all that the host has.
func BenchmarkReplica(b *testing.B) {
	const rows = 100_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b.Run("gossip", func(b *testing.B) {
		for b.Loop() {
			before := heap()
			s := newState(nil)
			for i := range rows {
				s.merge(endpointRow(i), time.Time{})
			}
			b.ReportMetric(float64(heap()-before)/rows, "B/row")
			runtime.KeepAlive(s)
		}
	})
	b.Run("host", func(b *testing.B) {
		for b.Loop() {
			before := heap()
			n := memnet.Network{}
			id := overlay.NewHostID()
			backend, err := New(Config{
				Host: id, Incarnation: 1, Keys: [][]byte{testKey}, Transport: n.Host(),
				Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			tab, err := table.Open(table.Config{Host: id, Incarnation: 1, Store: nowhere{}, Backend: backend})
			if err != nil {
				b.Fatal(err)
			}
			tab.Start()
			message := []byte{msgRows}
			for i := range rows {
				if message = appendRow(message, endpointRow(i)); i%1000 == 999 {
					(*delegate)(backend).NotifyMsg(message)
					message = message[:1]
				}
			}
			for tab.Status().Rows < rows {
				time.Sleep(10 * time.Millisecond)
			}
			b.ReportMetric(float64(heap()-before)/rows, "B/row")
			if err := tab.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
