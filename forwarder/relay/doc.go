// Package relay moves the bytes of a TCP connection between its two ends: the container's and the host's.
//
// # The central idea
//
// A caller gives two connected ends to a [Loop], which owns them from then on, and gets a [Session]. Which loop of code
// carries the session is private to this package, and changes while it lives: what is quiet costs no goroutine, what is
// busy is not copied through this process.
//
//	s := loop.Relay(inside, host, relay.Options{OnEnd: done}) // two sockets of the kernel
//	s := loop.RelayConn(conn, host, relay.ConnOptions{...})   // the container's end is netstack's
//	s := loop.RelayStream(inside, stream, relay.Options{...}) // the host's end is sealed in this process
//	s.Abort()                                                 // resets both ends
//	state, err := s.Detach(ctx)                               // for another process, which calls
//	s, err := loop.Resume(state, relay.Options{...})
//
// # The states of a session
//
//	 Relay                              RelayConn
//	   v                                    v
//	+------+  a piece that fills the   +---------+
//	| pair |  buffer, a short write    | copying |
//	+------+ ----------+               +---------+
//	   |               v                    |
//	   |          +----------+              |
//	   |          | spliced  | <-- Resume   |
//	   |          +----------+              |
//	   |               |                    |
//	   +---------------+--------------------+
//	   |               |                    |
//	   | both halves   | an error of one    | Detach, of a pair and
//	   | have ended    | half, Abort        | of a spliced session
//	   v               v                    v
//	 closed:         closed:              detached:
//	 delivered       reset on both ends   a State for another process
//
// As a pair the reactor copies, with three system calls for each piece of data. That suits requests, answers and the
// beginning of every stream. Spliced, two goroutines have the kernel move pages from socket to socket (splice(2)).
// Copying, two goroutines move bytes between netstack and a socket, or a socket and a stream (RelayStream).
//
// The end of a half (FIN) is passed on, and the other half goes on. A reset of one end is one of the other. A direction
// that waits for its destination to take data ends when its source is reset (stall).
//
// Package forwarder decides which connections there are. This package opens no connection, and knows no containers.
package relay
