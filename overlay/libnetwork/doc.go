// Package libnetwork makes this host one of the hosts of Docker's own overlay networks with a key-value store
// (dockerd --cluster-store, up to Docker 20.10): beside daemons of Docker, which see this host's containers, and whose
// containers this host sees. README.md has the keys and messages.
//
// Its one idea: the store's records say all that this host needs to know: which networks there are, and of each
// endpoint its address, MAC, names and host. What is said in the daemons' gossip (Serf) is not believed; this host
// only speaks there, so that the others learn where its endpoints are. A worker (Member.sync) makes the store's
// records of this host's endpoints equal to what SetContainer said last, and reads what the others have written,
// whenever something changes there.
//
// Package fabric carries the frames, and the daemon calls: it uses a Member as it uses a cluster.Cluster. Nothing here
// knows of containers beyond their endpoints.
package libnetwork
