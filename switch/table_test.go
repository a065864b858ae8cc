package vswitch

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
)

// TestTableAgainstPorts connects, changes and closes ports at random, some of them with the same addresses. Then each
// is found by its MAC, each address leads to a port that has it, and nothing that is gone is found.
func TestTableAgainstPorts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sw := New(Config{})
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(40))}) }
	config := func(i int) PortConfig {
		c := PortConfig{MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}}
		for range r.IntN(4) {
			c.Addrs = append(c.Addrs, addr())
		}
		if r.IntN(10) == 0 {
			c.LearnLimit = 8
		}
		return c
	}
	ports := map[int]*Port{}
	for i := range 3000 {
		switch n := r.IntN(300); {
		case ports[n] == nil:
			p, err := sw.Connect(config(n), &recorder{})
			if err != nil {
				t.Fatal(err)
			}
			ports[n] = p
			if r.IntN(20) == 0 {
				sw.SetStatic(p, []net.HardwareAddr{{2, 1, 0, 0, 0, byte(i)}})
			}
		case i%2 == 0:
			if err := ports[n].Update(config(n)); err != nil {
				t.Fatal(err)
			}
		default:
			if err := ports[n].Close(); err != nil {
				t.Fatal(err)
			}
			delete(ports, n)
		}
	}
	table := sw.table.Load()
	if len(table.ports) != len(ports) {
		t.Errorf("it has %d ports, want %d", len(table.ports), len(ports))
	}
	learning := 0
	having := map[netip.Addr][]*Port{}
	for n, p := range ports {
		state := p.state.Load()
		if got := table.own(state.mac); got != p {
			t.Errorf("the MAC of port %d leads to %v", n, got)
		}
		for _, a := range state.cfg.Addrs {
			having[a] = append(having[a], p)
		}
		if slices.Contains(table.learning, p) != state.learns() {
			t.Errorf("port %d learns: %v", n, state.learns())
		}
		if state.learns() {
			learning++
		}
	}
	if len(table.learning) != learning {
		t.Errorf("%d ports learn, want %d", len(table.learning), learning)
	}
	for a, list := range having {
		if got := table.at(a); !slices.Contains(list, got) {
			t.Errorf("address %v leads to %v", a, got)
		}
	}
	macs, addrs := 0, 0
	for i := range table.byMAC {
		macs += len(table.byMAC[i])
		addrs += len(table.byAddr[i])
	}
	if macs != len(ports) || addrs != len(having) {
		t.Errorf("%d MACs and %d addresses are found, want %d and %d", macs, addrs, len(ports), len(having))
	}
	for mac, p := range table.static {
		if p.closed.Load() {
			t.Errorf("MAC %v is behind a port that is closed", mac.mac())
		}
	}
}
