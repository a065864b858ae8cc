// Package filter decides about Ethernet frames by expressions as pcap-filter(7) has them: those that people type behind
// tcpdump.
//
// The central idea: an expression is parsed once into functions that look at a frame's bytes where they are. There is
// no BPF program, so that no C library is needed, and nothing is copied for a frame that is not wanted.
//
//	f, err := filter.Parse("tcp port 80 and host web", filter.Options{Lookup: addressesOf})
//	p := filter.Packet{Ethernet: header, Payload: pieces}
//	wanted := f.Match(&p)
//
// As in libpcap, "and" and "or" bind equally and from the left, an operand without a type takes over what the one
// before it was (tcp port 80 or 443), and a frame that is too short for what is read from it does not match at all,
// whatever else the expression says. Unlike there, names of hosts are asked of Options.Lookup, never of a resolver, and
// inbound and outbound are as the endpoint sees them.
//
// What is not supported is refused by name: VLAN, MPLS, PPPoE, 802.11 and ATM, gateway, protochain, ip broadcast,
// packet filters' metadata, and fields of TCP over IPv6, which libpcap does not find either.
//
// Package capture calls it on the path of frames. It never allocates or blocks there.
package filter
