// Package slirp4netns takes the place of slirp4netns(1), version 1.3: its command line, its descriptors, its address
// plan and its API socket, over usernet's engine. Podman, RootlessKit and rootless Docker call it unchanged.
//
// It runs without a daemon, one process for each namespace: [Parse] reads the command line, [Run] joins the namespace
// with a TAP, tells the caller by the ready descriptor, and forwards until the exit descriptor hangs up, the process is
// asked to end, or the namespace is gone.
//
// What differs from slirp4netns: host ports may be IPv6, services see the client's own address, ports of the same
// number do not end the process, and --enable-sandbox and --enable-seccomp confine the process with Landlock, without
// capabilities, and with a filter on system calls, rather than with a mount namespace.
package slirp4netns
