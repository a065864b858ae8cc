// Package forwarder carries connections between a network's gateway and ordinary sockets of the host.
//
// # The central idea
//
// Outbound, the host is dialled before the container's handshake is completed, so that a refusal stays a refusal.
// Inbound, a published port's listener is an ordinary socket, and the container is dialled in the client's own name.
// The container's end of a TCP connection is a socket of its own network namespace where there is one (Config.Socket):
// the kernel does the rest. Else it is the gateway's. UDP and ping have one host socket for each source address and
// port (RFC 4787, endpoint-independent mapping). Every table is bounded for each container, and a full one of datagrams
// gives up what was never answered for the newcomer.
//
// # How it is used
//
// Package engine makes a Forwarder for each network, gives it the network's gateway (Gateway) and has the gateway hand
// it what containers send beyond the network (Handler):
//
//	f, err := forwarder.New(forwarder.Config{Inside: gateway, Shared: shared})
//	bound, err := f.Publish(ctx, in4, in6, []publish.Binding{{HostPort: 8080, Port: 80, Proto: publish.TCP}})
//	f.HandleTCP(syn)       // a container's SYN: dials, then accepts, refuses or answers with an ICMP error
//	f.AbortContainer(in4)   // the container has ended
//
// It knows no netstack, no namespaces and no names of containers. No lock is held, of its own or of the gateway's,
// while something waits for a peer.
//
// # A TCP connection
//
//	             dial the host            accept, or answer from the container's namespace
//	SYN --------> dialling ---------------> established --------> closing --------> gone
//	  |              |                        |  one half has ended  |   both halves have
//	  | refused by   | refused by the host    |                      |
//	  v the policy   v                        v  a reset, the container's end, Close
//	 reset          reset, ICMP error        reset on both sides, whatever waits
//
// Once a connection has both its ends, package relay moves its bytes, and has the states of that.
package forwarder
