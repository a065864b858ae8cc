// Package overlay has what the hosts of a cluster tell each other: ids, records and the keys they are stored under.
//
// A network that spans hosts is a switch on each of them with one port to the others, the fabric port. What the hosts
// have to know of each other is in one replicated table of records. Each record has one key, is JSON of MaxRecord bytes
// at most, and is
// written by one host:
//
//	hosts/<id>                  Host      where a host is reached, and its public key
//	nets/<id>                   Network   a network, as its creator made it
//	netnames/<name>             Name      which network has a name
//	pools/<prefix>              Name      which network has a subnet
//	vnis/<n>                    Name      which network has a number on the wire
//	blocks/<network>/<prefix>   Block     which host gives out the addresses of a part of a subnet
//	eps/<network>/<address>     Endpoint  which container has an address, and on which host
//	routes/<prefix>             Route     a subnet elsewhere that is reached through a host
//	alive/<id>                  none      a host that is heard of; made by the backend (package table)
//
// What comes from other hosts is read strictly: a record with an unknown field, a field out of its bounds, or a key
// that does not belong to it is refused. Package table keeps the records, package kv and gossip spread them, package
// fabric carries frames.
package overlay
