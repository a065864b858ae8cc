package main

// enginesPages are those of commands that container engines call, and of what has them do so.
var enginesPages = map[string]page{
	"slirp4netns": {
		group: groupRuntimes,
		long: `Connect one network namespace to the host's network, without a daemon, with the command line,
descriptors and API socket of slirp4netns 1.3. A symbolic link called slirp4netns to usernet does the same; usernet
slirp4netns --help lists the options.`,
		examples: "usernet slirp4netns --configure --mtu=65520 4711 tap0",
		args:     []completer{nothing},
	},
	"pasta": {
		group: groupRuntimes,
		long: `Connect one network namespace to the host's network so that it looks like the host, without a daemon,
with the command line of pasta. A symbolic link called pasta to usernet does the same; usernet pasta --help lists the
options.`,
		examples: "usernet pasta --config-net -t 8080:80 4711",
		args:     []completer{nothing},
	},
	"rootlessport": {
		group: groupRuntimes,
		long: `Bind the host's ports of one container, as rootless Podman asks for it in JSON on standard input, and
keep the clients' addresses. Podman calls it by a symbolic link called rootlessport (usernet integrate podman).`,
		examples: "usernet rootlessport < config.json",
		args:     []completer{nothing},
	},
	"gvproxy": {
		group: groupRuntimes,
		long: `Give a virtual machine a network with the command line and HTTP API of gvproxy (gvisor-tap-vsock): its
socket is an endpoint on a network of the daemon. A symbolic link called gvproxy to usernet does the same; usernet
gvproxy --help lists the options.`,
		examples: "usernet gvproxy -listen unix:///run/user/1000/api.sock -listen-qemu unix:///run/user/1000/vm.sock",
		args:     []completer{nothing},
	},
	"integrate": {
		group: groupRuntimes,
		long: `Show what makes another program use usernet; with --write make it so, with --undo take it back. Nothing
that was not written by usernet is changed.`,
		examples: `usernet integrate podman
usernet integrate podman --write`,
		args: []completer{words(integrationNames...)},
	},
	"netavark": {
		group: groupRuntimes,
		long: `Called by netavark, Podman's network program, as the plugin of the driver usernet. usernet integrate
netavark makes it known.`,
		examples: "usernet netavark info",
		args:     []completer{words("create", "info", "setup", "teardown")},
	},
	"docker-plugin": {
		group: groupRuntimes,
		long: `Answer rootless Docker as its network and IPAM plugins usernet and usernet-overlay. dockerd finds the
sockets, $XDG_RUNTIME_DIR/usernet/docker/usernet.sock and usernet-overlay.sock, once "usernet integrate docker --write"
has set that up. Where no daemon answers, one is started with the first network.`,
		examples: "usernet docker-plugin",
	},
	"oci-hook": {
		group: groupRuntimes,
		long: `Called by runc, crun or Podman as a hook, with the container's state on standard input: a container
whose annotation usernet.network names networks gets interfaces on them. createRuntime and poststop are the stages of
runc and Podman; crun by itself calls it in createContainer, where --host has to name the daemon's socket. usernet
integrate oci shows the configuration.`,
		examples: "usernet oci-hook createRuntime <state.json",
		args:     []completer{words("createContainer", "createRuntime", "poststop", "prestart")},
	},
}
