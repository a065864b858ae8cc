package engine

import (
	"net/netip"
	"testing"

	"github.com/usernet/usernet/forwarder"
)

// BenchmarkNew is what one more network costs in a process that has others.
func BenchmarkNew(b *testing.B) {
	shared := forwarder.NewShared(forwarder.Limits{}, forwarder.Limits{})
	b.Cleanup(func() { _ = shared.Close() })
	b.ReportAllocs()
	for b.Loop() {
		n, err := New(Config{Name: "bench", Shared: shared,
			Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}})
		if err != nil {
			b.Fatal(err)
		}
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
