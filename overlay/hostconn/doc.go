// Package hostconn makes the connections between two hosts that each carry one TCP connection of their containers, from
// socket to socket.
//
// # The central idea
//
// Both hosts have a WireGuard key that the other one has pinned. From its own key and the other's a host computes a
// secret that only these two have (X25519), so a message authenticated with it says who sent it: a host speaks only as
// itself, and nothing is agreed upon before. Where the network is sealed, TLS 1.3 is below that. Its certificate
// names nobody: what the hosts authenticate contains the TLS session's exporter value (RFC 9266), so both refuse an
// attacker between them that has a session with each.
//
//	dialing host                                accepting host
//	  | "usernetT" (sealed) or "usernetP" --------> |
//	  | <============ TLS 1.3, sealed ============> |
//	  | request: host, network, source, destination | Config.KeyOf: the host's key
//	  |          and their authentication --------> | the caller checks the source and the policy, and connects to the
//	  | <------- answer and its authentication      | container (Asked.Accept) or does not (Asked.Refuse)
//	  | <=== what the two containers say =========> |
//
// A request has one length and an answer too, so nothing that a peer sends makes anything grow. The caller limits how
// long a handshake may take, by a deadline on the connection.
//
//	h, err := hostconn.New(hostconn.Config{Host: id, Key: key, KeyOf: keyOf})
//	c, err := h.Dial(ctx, conn, peer, request)   // ErrRefused: the other host has the SYN go as a frame
//	a, err := h.Answer(conn, preamble)
//	c, err := a.Accept()
//
// Package fabric dials and listens. This package knows no networks, no policy and no containers.
package hostconn
