// Package rootlessport takes the place of Podman's rootlessport: the program that binds the host's ports of a container
// with a network of Podman's own, a bridge, or one beside slirp4netns. What Podman's does loses the address of the
// client; this one keeps it.
//
// Podman starts one for each container, in the user namespace of its pause process and in the host's network namespace,
// with a [Config] on standard input. It binds the ports, says so on a descriptor, and ends when another one is closed;
// a socket takes another address of the container, where networks are connected and disconnected.
//
// The one idea: a socket belongs to the network namespace in which socket(2) was called. One thread of the process has
// entered the container's; it makes sockets there that connect to the service in the client's name (package bypass),
// between which and the host's the kernel moves the bytes (package splice). Where that cannot be had, for clients that
// are the host itself and for containers with packet filters of their own, the service sees the container's own
// address, as with Podman's.
//
// [Publish] is the same for other programs that lead ports of their own network namespace into a container's.
package rootlessport
