// Package bgp is a BGP speaker that an ordinary user can run: it connects to its neighbours (port 179 cannot be bound
// without privileges), announces the routes it is given, and keeps those that it hears of. It has no forwarding table
// and chooses no best path: that is its caller's. Families are IPv4 and IPv6 unicast, of which it only announces, and
// EVPN (RFC 7432) with routes of types 2 and 3, of which it also listens.
//
//	s, err := bgp.New(bgp.Config{ASN: 65000, RouterID: id, Addrs: addrs, Neighbors: list, Changed: wake})
//	s.Set("container", []bgp.Route{{NLRI: nlri, Path: path}}) // in the place of what was set by that name before
//	for _, r := range s.Learned() { ... }
//	s.Close() // neighbours are told, and withdraw everything at once
//
// A neighbour has one goroutine that connects again and again, and while there is a connection a second one that
// writes. Nobody waits for a neighbour: what is to be announced is a map, which the writer compares with what it has
// sent. What a neighbour sends is bounded (MaxLearned), and an error in it is handled as RFC 7606 says.
//
// When a session is lost, what was learned stays for StaleTime: paths between the ends do not lead through the
// neighbour, which is mostly a route reflector. A neighbour that says that it ends for good has its routes removed at
// once.
package bgp
