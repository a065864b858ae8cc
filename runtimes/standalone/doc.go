// Package standalone connects one network namespace to the host's network, in one process and without a daemon: what
// the places of slirp4netns and pasta have in common.
//
// [Start] takes the descriptor of a TAP that is in the namespace and serves it until [Network.Close], or until the TAP
// is gone with its namespace. There is one guest on the network, so nothing keeps guests apart, and its switch port has
// no guard: what it does to the gateway it does to itself.
package standalone
