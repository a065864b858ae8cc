// Package oci is usernet as an OCI runtime hook
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks): containers of runc, crun
// and Podman whose annotations name a network get an interface on it.
//
// The one idea: the hook opens the container's network namespace, as a process that may, and sends its descriptor to
// the user's
// daemon with the container's id as the key; poststop ends what has that key, and so does the end of the container's
// first process, since a runtime that is killed calls no poststop. Which stage can open it is the runtime's:
//
//	createRuntime    runc, and Podman with either runtime: /proc/PID/ns/net of the state on standard input
//	createContainer  crun by itself, whose container cannot be looked into from outside: /proc/self/ns/net
//
// Annotations, of which the first is needed and the rest is optional:
//
//	usernet.network       mynet[,other]     the networks
//	usernet.name          web               else the container's id, shortened
//	usernet.alias         shop[,store]      further names on the first network
//	usernet.publish       8080:80[,...]     as `usernet run --publish` has it
//	usernet.ip            10.9.0.9[,fd::9]  on the first network, as are the next
//	usernet.mac           02:00:00:00:00:09
//	usernet.dns           192.0.2.53[,...]
//	usernet.egress        deny
//	usernet.allow-egress  example.com:443[,...]
//
// resolv.conf and hosts are written where the bundle mounts them into the container, and into the root file system of
// Podman's containers, which is their own. In createContainer the environment may be the image's, and none of it is
// believed: there the socket is given as an argument.
package oci
