// Package routers keeps what the routers of a link announce (RFC 4861): which of them are default routers, which
// prefixes there are and for how long, whether addresses are DHCPv6's to give, and the name servers (RFC 8106).
//
//	if a := routers.Parse(frame); a != nil { table.Take(a) }
//	view := table.View(time.Now())
//	addrs := view.Addresses(mac) // those that a station makes itself (SLAAC, RFC 4862)
//
// A link's stations may send any of it, so all is checked and bounded. The package sends nothing, but for the packet of
// a solicitation that Solicitation makes.
package routers
