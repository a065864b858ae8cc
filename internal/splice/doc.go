// Package splice carries TCP connections and UDP datagrams between sockets of two network namespaces, or of one, by
// goroutines: what needs no gateway and no policy, since who may connect to one end may connect to the other.
//
//	g := splice.NewGroup()
//	defer g.Close()
//	stop := g.AcceptTCP(listener, func(ctx context.Context, client netip.AddrPort) (*net.TCPConn, error) {
//		return dial(ctx, target)
//	})
//
// The kernel moves a connection's bytes (splice(2)); each end's FIN and reset is passed on to the other. Everything is
// bounded: connections by the descriptors that the process may have, the clients of a UDP port by a number and a time.
// Containers' flows through a network are package forwarder's, which has accounts, limits and takeover.
package splice
