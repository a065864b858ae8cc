// Package sim simulates a cluster without a store: many hosts in one process with the settings that daemons have, over
// a network in memory (package memnet). It measures what gossip costs and how long it takes (docs/overlay.md has the
// results). `make sim`; `go test` alone runs a small cluster.
//
// It runs in a bubble of testing/synctest: the clock goes on only when no host has anything to do. So times are those
// of the protocol on the network that the flags describe, with processors that take no time, however slow this machine
// is.
//
// Hosts share what they know (gossip.Shared), since a thousand replicas of a hundred thousand endpoints fit into no
// machine: what a replica takes on one host is measured apart (`go test ./overlay/gossip -run - -bench Replica`).
package sim
