// Package names is the table of the names at which containers find each other, and of the links between them.
//
// # The central idea
//
// A change is about one container or one network, and costs what that one has: the rest of the table stays. So an
// event takes the same time whether one container runs or two thousand do. What a container sees is put together when
// it asks: its own names (hosts, links) go before those of the networks that it is on, and a link's alias leads to
// whatever has the target's name then.
//
//	t := names.NewTable()
//	t.SetNetwork(names.Network{ID: "n1", Resolves: true})
//	t.SetContainer(names.Container{ID: "c1", Endpoints: []names.Endpoint{{
//		Network: "n1", Suffix: "mynet", Names: []string{"web"}, Addrs: []netip.Addr{addr},
//	}}})
//	addrs, last, ok := t.LookupName("c1", "web.mynet")
//
// The daemon keeps a Table in step with its records, and gives it to package dns as its Directory. Of
// package network it has links only; it knows no records, no sockets and no switch, and ids are texts to it.
package names
