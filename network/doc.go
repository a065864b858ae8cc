// Package network is the model: which networks, containers and endpoints exist, which addresses they have, and the
// rules of Docker's Container Network Model that say what may exist.
//
// # The central idea
//
// A Model holds everything in memory and in a Store. Each change is checked, stored in one transaction, and only then
// seen by others; what a call returns is a copy that the caller may keep. A change is a function of what the model has,
// and is computed again where somebody else has changed the store meanwhile, so that several processes can share a
// store. Readers never wait for it. Nothing here opens a socket or starts a goroutine: the daemon makes real what the
// model says.
//
// Stores: package boltstore keeps one in a file, MemoryStore in memory; package storetest holds what each has to keep.
package network
