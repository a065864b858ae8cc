// Package daemon is the running whole: it keeps the model's networks and containers alive as switches,
// gateways, TAP devices, DNS stubs and published ports, and answers the API's questions about them.
//
// # The central idea
//
// The model (package network) says what should exist and stores it first. The daemon then makes it so, and undoes the
// stored change where it cannot. What runs is held in two kinds of objects: a bridge for each network in use, which is
// an engine.Network, and a sandbox for each running container (its attachments, stub sockets, published ports and the
// watch on its process). Both can be thrown away and made again from the model, which is what a restart does. A daemon
// that takes another's place, or whose service manager kept them, gets TAPs and stub sockets instead of opening them
// again.
//
// # Locks
//
// Each sandbox has a lock that is held while it is changed (start, connect, publish, end), because entering its
// namespaces takes milliseconds. Daemon.mu guards only the maps and is never held while something is made or waited
// for: a bridge that is being made has its place in the map, and who needs it waits there.
// Order: sandbox.mu, then Daemon.mu, then the model's own lock.
//
// Package api calls it; it never parses what a user wrote and never prints.
package daemon
