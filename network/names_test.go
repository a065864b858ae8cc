package network

import (
	"strings"
	"testing"
	"time"
)

// TestANameThatSeveralNetworksHave means the one of this host, else the older one, whatever the order of a map is.
func TestANameThatSeveralNetworksHave(t *testing.T) {
	at := func(id string, scope Scope, created int64) *Network {
		return &Network{ID: strings.Repeat(id, 64), Name: "n", Scope: scope, Created: time.Unix(created, 0)}
	}
	older, same, newer := at("c", ScopeGlobal, 1), at("d", ScopeGlobal, 1), at("a", ScopeGlobal, 2)
	local := at("e", ScopeLocal, 3)
	for _, c := range []struct {
		have []*Network
		want *Network
	}{
		{[]*Network{newer, same, older}, older},
		{[]*Network{newer, same}, same},
		{[]*Network{newer, same, older, local}, local},
	} {
		m := &Model{records: newRecords()}
		for _, n := range c.have {
			m.setNetwork(n.ID, n)
		}
		for range 20 {
			if got, err := m.findNetwork("n"); err != nil || got != c.want {
				t.Fatalf("of %d networks: %v %v, want %v", len(c.have), got, err, c.want)
			}
		}
	}
}
