// Package gossip spreads a cluster's rows (package table) among the hosts themselves, without a store: a table.Backend
// on memberlist.
//
// The central idea: each key has one register for each host that wrote it, and only a later write of the same host
// replaces it (by version, then incarnation). Registers can be merged in any order, and all hosts end with the same
// ones. What a key says is the best of its live registers: of two claims the older, then that of the lower host id. So
// a claim that lost is not forgotten, and no deletion of one host's row can delete another's.
//
// Rows travel in three ways:
//
//   - A change is broadcast in the datagrams with which hosts probe each other.
//   - Every 30 s a host compares digests with another one (sync.go), and then only rows that differ are sent. That is
//     what heals a partition; the whole table is sent only to who has nothing.
//   - All seeds are joined again every minute, for ever: memberlist by itself forgets hosts that it held for dead.
//
// A claim waits for objections: its row is broadcast, and a host that has an older claim sends that one back at once.
// Deleted rows are remembered for a while (tombstones), by the clock of each host that remembers them. No clock is
// compared with another host's, except between two claims that were made without knowledge of each other.
//
// All messages are sealed with AES-256-GCM by the cluster's key. A holder of the key may write anything: see
// SECURITY.md.
package gossip
