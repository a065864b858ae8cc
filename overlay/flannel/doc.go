// Package flannel makes this host a node of a flannel network, among hosts that run flanneld: it takes a subnet lease
// in their etcd, keeps it, and carries packets to and from the other nodes' subnets. The formats are those of flannel
// v0.26 (pkg/subnet/etcd, pkg/subnet/config.go and pkg/backend in its sources):
//
//	PREFIX/config                 the network's configuration (Config)
//	PREFIX/subnets/10.5.34.0-24   a node's lease (lease), on an etcd lease of 24 hours
//
// A [Node] follows the store (follow.go) and holds the lease (hold.go). What it knows is on disk (state.go), so a
// daemon that starts while the store is away goes on with the lease and the nodes that it knew. [Node.Join] connects a
// network that runs; package fabric carries its packets (fabric.Routed): backend vxlan as frames between the nodes'
// VTEPs, backend udp as bare packets.
//
// The one idea: the kernel is no part of it. Other backends have the kernel route or encrypt, and are refused with the
// reason.
package flannel
