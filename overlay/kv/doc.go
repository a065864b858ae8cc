// Package kv spreads a cluster's rows (package table) by a key-value store that all hosts reach: etcd, Consul or
// ZooKeeper.
//
// The central idea: a store is five calls (Store), in the units of each store's own client library, which knows about
// failover, TLS and sessions. Backend makes a table.Backend of them, once for all stores:
//
//   - A row is one key below a prefix; its value is JSON with the record and who wrote it, readable with the store's
//     own tools.
//   - A claim is a Put of a key that must not be there.
//   - alive/<host> hangs on the host's lease, and nothing else does: what a lease ends is that a host is heard of.
//   - Watch lists, and then follows. Whatever breaks it (a lost connection, a compacted history, an expired session) is
//     an error for the caller and a new list after it.
//   - Every call ends after table.CallTimeout.
//
// Packages etcd, consul and zookeeper have the adapters, memory one for tests with the faults of a store, kvtest what
// all of them have to do, remote a Store that another process has. Package stores chooses the one that a URL names.
//
// A host trusts its store: a writer below the prefix says where containers are. See SECURITY.md.
package kv
