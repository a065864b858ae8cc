// Package cni is usernet as a CNI plugin (https://www.cni.dev/docs/spec/), versions 0.3.1 to 1.1.0.
//
// The one idea: an attachment of CNI's, which is a network's name, a container id and an interface name, is an
// attachment of the user's daemon with those three as its key. So every verb can be repeated, DEL finds what ADD made
// without state of its own, and GC removes the keys that the runtime no longer knows. The plugin opens the network
// namespace where it can see it and sends the descriptor to the daemon, which does the rest.
//
// A configuration, and what it may have besides CNI's own keys:
//
//	{"cniVersion": "1.1.0", "name": "mynet", "plugins": [{
//	  "type": "usernet-cni",
//	  "network": "mynet",      // usernet's network; the configuration's name where it is not given
//	  "create": false,         // do not make the network where it is not there (true where it is not given)
//	  "subnet": "10.9.0.0/24", // of a network that is made; also "gateway", "ipv6", "internal", "options"
//	  "egress": "deny", "allowEgress": ["example.com:443"],
//	  "publish": "auto",       // "always", "never"; auto: unless the runtime binds host ports itself
//	  "socket": "/run/user/1000/usernet/usernet.sock",
//	  "capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true, "dns": true, "bandwidth": true}
//	}]}
//
// Rootless Podman binds published ports itself (rootlessport), so the plugin leaves them alone there. Under
// RootlessKit, as with nerdctl, RootlessKit binds the host's port and leads it to the same port of its own network
// namespace, where other plugins have the kernel's packet filter lead it on. usernet's containers are not behind that
// namespace: the plugin starts a relay there, a process of its own that accepts in RootlessKit's namespace and connects
// in the container's (package rootlessport). It ends with DEL or with the container, and needs no daemon.
package cni
