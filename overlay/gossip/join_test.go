package gossip

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/hashicorp/memberlist"
)

// TestSeedsThatAreMembersAreJoinedByTurns: by all hosts of a small cluster, by some of a large one; others by all.
func TestSeedsThatAreMembersAreJoinedByTurns(t *testing.T) {
	const seed, port, other = "10.0.0.1:7946", "10.0.0.2", "10.0.0.3:7947"
	for _, test := range []struct {
		members int
		settled bool
		random  float64
		want    []string
	}{
		{joinsPerSeed, true, 0.99, []string{seed, port, other}},
		{64, true, 0.51, []string{other}},
		{64, true, 0.49, []string{seed, port, other}},
		{64, false, 0.99, []string{seed, port, other}},
		{1000, true, 0.04, []string{other}},
		{1000, true, 0.03, []string{seed, port, other}},
	} {
		b := &Backend{config: Config{Seeds: []string{seed, port, other}}}
		b.mu.members = map[string]*memberlist.Node{}
		for i := range test.members {
			node := &memberlist.Node{Name: fmt.Sprint(i), Addr: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: DefaultPort}
			b.mu.members[node.Name] = node
		}
		b.members.Store(int64(test.members))
		got, rest := b.seedsToJoin(test.settled, func() float64 { return test.random })
		if !slices.Equal(got, test.want) || rest != len(b.config.Seeds)-len(got) {
			t.Errorf("%d members: %v are joined, %d not; want %v", test.members, got, rest, test.want)
		}
	}
}
