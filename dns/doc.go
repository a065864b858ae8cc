// Package dns answers the names of containers and forwards all others to the host's resolvers.
//
// # The central idea
//
// A Server answers on any socket; which client asks is known by the socket, not by what a packet says, and a Directory
// says what that client may see. Names of the directory are answered in place; others go upstream with a fresh socket for each query,
// unless the client's Allow refuses them.
package dns
