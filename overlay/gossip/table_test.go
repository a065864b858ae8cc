package gossip

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// TestAClaimedAddressStaysClaimed: a claim is seen by its own host before its answer, and that must not end it.
func TestAClaimedAddressStaysClaimed(t *testing.T) {
	c := &cluster{t: t}
	id := overlay.NewHostID()
	transport := c.net.Host()
	b, err := New(Config{
		Host: id, Incarnation: 1, Keys: [][]byte{testKey}, Transport: transport, Objections: 500 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler), tune: quick,
	})
	if err != nil {
		t.Fatal(err)
	}
	tab, err := table.Open(table.Config{Host: id, Incarnation: 1, Store: network.NewMemoryStore(), Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	tab.Start()
	defer tab.Close()
	until(t, "the first list", func() bool { return tab.Status().Synced })
	n, addr := strings.Repeat("ab", 32), netip.MustParseAddr("10.0.0.2")
	value, err := overlay.Encode(overlay.Endpoint{
		Network: n, Addrs: []netip.Addr{addr}, MAC: overlay.MAC{2}, Host: id, EndpointID: n, Container: n,
	})
	if err != nil {
		t.Fatal(err)
	}
	key := overlay.EndpointKey(n, addr)
	if err := tab.Claim(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	row, is := b.mu.state.visible(key)
	b.mu.Unlock()
	if !is || row.Owner != id {
		t.Errorf("after the claim: %+v", row)
	}
	other := table.Row{Key: key, Value: value, Owner: overlay.NewHostID(), Incarnation: 1, Version: 1, Claimed: 1}
	var taken *table.TakenError
	if err := b.Claim(t.Context(), other); !errors.As(err, &taken) {
		t.Errorf("another claim of it: %v", err)
	}
}
