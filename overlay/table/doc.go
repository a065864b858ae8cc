// Package table is a host's replica of a cluster's records (package overlay): on disk, so that it is there while
// nothing else can be reached, and in memory as the views that the rest of the daemon reads.
//
// Rows are spread by a Backend: a store that all hosts reach (package kv), or the hosts among themselves (package
// gossip). A backend moves rows and knows nothing of what they say. What a lost connection, a partition or a restored
// backup means is decided here, once for all backends:
//
//   - A host's own rows are put again whenever the backend lacks them.
//   - A host that is not heard of stays in the table, marked down, until its rows expire (RecordTTL).
//   - Of two claims to one key the older wins, then the lower host id.
package table
