// Package netavark is usernet as a plugin of netavark, Podman's network program
// (https://github.com/containers/netavark/blob/main/plugin-API.md): `podman network create -d usernet mynet` has a
// network of the user's daemon, with names, egress rules and flows, and with containers of every other engine on it.
//
// The one idea: Podman's network is the daemon's network of the same name, and a container's attachment has the
// network's and the container's ids as its key. So Podman may call twice, teardown finds what setup made, and nothing
// is stored here.
//
// Podman binds published ports itself (rootlessport), so the plugin publishes none. Option network=NAME uses a network
// of another name; all other options are those of `usernet network create -o`.
package netavark
