// Package handover has the descriptors that outlive a process: what a daemon leaves to the next one, so that no
// published port refuses a connection, no interface loses its carrier and no TCP connection breaks while daemons
// change.
//
// The central idea is one table of named descriptors, Set. A daemon fills it from up to two sources when it starts, and
// takes from it what it can use; the rest is closed:
//
//   - FromManager: what the service manager passes (sd_listen_fds(3)): sockets of socket units, and what an earlier
//     daemon had it store;
//   - Receive: what the daemon that runs hands over to the one that takes its place.
//
// While it runs and when it ends, a daemon gives copies to two sinks:
//
//   - Store: the service manager's file descriptor store, from when something is opened until it is closed for good;
//   - Peer.Offer: the successor.
//
// A takeover is a conversation over the API's socket, whose request is the last HTTP in it:
//
//	successor                                      predecessor
//	POST /usernet/handover, version      --->
//	                                     <---      101, then descriptors with their IDs, then "end"
//	taken                                --->      goes on serving until it has read this
//	                                               stops reading, lets its TCP connections go
//	                                     <---      the connections, then the end of the stream:
//	opens the state, starts                        the state is free
//
// Where anything fails before "taken", the predecessor goes on as if nothing had been; whatever the successor has got
// are copies.
//
// The package knows neither networks nor sandboxes. It never opens a descriptor of its own but for this conversation.
package handover
