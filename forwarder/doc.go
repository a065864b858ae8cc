// Package forwarder carries connections between a network's gateway and ordinary sockets of the host.
//
// # The central idea
//
// Outbound, the host is dialled before the container's handshake is completed, so that a refusal stays a refusal. Inbound, a published
// port's listener is an ordinary socket, and the container is dialled in the client's own name. The container's end of a TCP
// connection is a socket of its own network namespace where there is one (Config.Socket): the kernel does the rest. Else it is
// netstack's. UDP and ping have one host socket for each
// source address and port (RFC 4787 endpoint-independent mapping). Every table is bounded for each container.
//
// The daemon makes a Forwarder for each network and gives it the gateway (package stack) as its Inside.
package forwarder
