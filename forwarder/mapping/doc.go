// Package mapping has tables of what stands for a container's datagrams on the host: UDP associations, ping sessions,
// clients of published UDP ports.
//
// # The central idea
//
// A mapping lives until it was unused for a while in both directions (RFC 4787 REQ-6), for longer once it was answered.
// Every table is bounded for each container by its Limiter. Where a container has as many as it may, the one that it
// needs least is given up for the newcomer: those that were never answered go first. So a flood of forged sources does
// not keep others out.
//
//	table := mapping.New[netip.AddrPort, *association](mapping.Config{Limiter: limits, Lifetimes: mapping.UDP})
//	a, made, err := table.Make(src, src.Addr(), open)   // or the one that is there
//	a.Used()                                            // a datagram of the container
//	a.Answer()                                          // one for it
//	table.End(a)                                        // a.Close is called
//
// # A mapping
//
//	      Make            Answer             unused for Lifetimes.Answered
//	(none) --> unanswered ------> answered ----------------------------------+
//	               |                 |                                       v
//	               |                 +-- its turn, no other is unanswered --> ended
//	               +-- unused for Lifetimes.Unanswered, its turn ------------^
//
// The package opens no sockets. It calls Entry.Close with no lock held.
package mapping
