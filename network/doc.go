// Package network is the model: which networks, containers and endpoints exist, which addresses they have, and the
// rules of Docker's Container Network Model that say what may exist.
//
// # The central idea
//
// A Model holds everything in memory and in one bbolt file. Each change is checked, stored in one transaction, and only
// then seen by others; what a call returns is a copy that the caller may keep. Nothing here opens a socket or
// starts a goroutine: the daemon makes real what the model says.
package network
