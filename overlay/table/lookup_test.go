package table

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// BenchmarkLookup looks up one endpoint among many, lists those of a network, and takes over a change.
func BenchmarkLookup(b *testing.B) {
	const networks, endpoints = 16, 20_000
	id := func(i int) string { return fmt.Sprintf("%064x", i+1) }
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	row := func(i int, version uint64) Row {
		host := overlay.HostID(fmt.Sprintf("%032x", i%100+1))
		value, err := overlay.Encode(overlay.Endpoint{
			Network: id(i % networks), Addrs: []netip.Addr{addr(i)}, MAC: overlay.MAC{2, byte(i >> 8), byte(i)},
			Host: host, EndpointID: id(i), Container: id(i), Name: fmt.Sprint("web", i), Names: []string{"web"},
			Running: version%2 == 0,
		})
		if err != nil {
			b.Fatal(err)
		}
		key := overlay.EndpointKey(id(i%networks), addr(i))
		return Row{Key: key, Value: value, Owner: host, Incarnation: 1, Version: version}
	}
	t, err := Open(Config{Host: overlay.NewHostID(), Incarnation: 1, Store: network.NewMemoryStore()})
	if err != nil {
		b.Fatal(err)
	}
	for i := range endpoints {
		t.apply(Event{Kind: EventRow, Row: row(i, 1)})
	}
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if e, is := t.EndpointAt(id(0), addr(i*networks%endpoints)); !is || e.Name == "" {
				b.Fatal("it is not there")
			}
		}
	})
	b.Run("network", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if n := len(t.Endpoints(id(i % networks))); n != endpoints/networks {
				b.Fatalf("%d endpoints", n)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			t.apply(Event{Kind: EventRow, Row: row(i%endpoints, uint64(2+i/endpoints))})
		}
	})
}
