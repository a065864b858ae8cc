// Package libnetwork is usernet as Docker's network and IPAM plugins (libnetwork's remote driver and remote IPAM):
// containers of rootless Docker on networks of the user's daemon, beside those of all other engines.
//
//	docker network create -d usernet --ipam-driver usernet lan
//	docker network create -d usernet --ipam-driver usernet --ipam-opt network=mynet mynet
//	docker network create -d usernet-overlay --ipam-driver usernet-overlay --ipam-opt network=wide wide
//
// The one idea: an endpoint of Docker's is an attachment of the user's daemon, with the ids of Docker's network and
// endpoint as its key. The daemon makes the interface in the network namespace of the plugin's caller, which is
// dockerd in RootlessKit's; dockerd moves it on to the container. Frames go to the daemon by the interface's descriptor
// from the beginning, so the plugin sees none, and the daemon binds published ports on the host itself.
//
// There is a socket for each driver, and dockerd finds them by links, which the program in dockerd's place makes
// ([Dockerd]), or by specification files. What the plugin has to remember beside the daemon is which network of
// Docker's is which of the daemon's; that is in one file. Addresses are reserved by the endpoints themselves; between
// the call that chooses one and the call that makes the endpoint, in memory.
//
// Docker tells its plugins no names. They are asked of its API once a container runs, and the daemon's DNS knows them.
//
// A Plugin has a goroutine for each socket and one that looks for names. Close ends them.
package libnetwork
