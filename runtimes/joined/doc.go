// Package joined connects a network namespace to networks of the user's daemon. The places of slirp4netns and pasta do
// that, instead of forwarding themselves, where USERNET_NETWORK or their option names networks: the runtime's container
// then has neighbours, names, egress rules and flows like any other.
//
// [Join] sends the namespace's descriptor to the daemon, and returns when traffic can flow. The frames are the
// daemon's: the process that joined only holds the attachment, which ends with it. Where the daemon is replaced,
// nothing has to be done; where it has crashed, the attachment is asked for once more as soon as there is a daemon
// again.
package joined
