// Package packet has the forms in which packets go between the packages that handle them, and the headers that are built by hand.
//
// A [Datagram] is what a network's gateway has taken out of a frame for the forwarder: addresses, what else of the headers has to
// be kept, and the payload. The quote functions build what an ICMP error repeats of a packet that the forwarder sent.
//
// The package parses nothing that it is not given whole, opens no sockets and keeps no state.
package packet
