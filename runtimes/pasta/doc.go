// Package pasta takes the place of pasta(1), of passt's release 2025-05: its command line and its behaviour, over
// usernet's engine. Podman from release 5 on, RootlessKit 3 and people at a shell call it unchanged.
//
// The one idea of pasta: the namespace looks like the host. It has the host's address, routes and interface name; the
// gateway answers ARP and neighbour solicitations for everybody else and forwards by ordinary host sockets, so that a
// connection to outside has the source that it would have without a namespace.
//
// It runs without a daemon, one process for each namespace: [Parse] reads the command line, [Run] configures the
// namespace, goes into the background and forwards until the namespace is gone. Options that cannot be carried out are
// refused by name: those of passt, which serve virtual machines.
package pasta
