package main

import (
	"github.com/usernet/usernet/sandbox"
	"github.com/usernet/usernet/sandbox/profile"
)

// usersPages are those of commands that people type, by their words behind `usernet`.
var usersPages = map[string]page{
	"run": {
		group: groupContainers,
		long: `Run a command in a sandbox of its own: new user, network, mount, UTS, IPC, PID and cgroup namespaces,
with the capabilities and the filter of system calls that Docker gives a container. Root inside is nobody special
outside. The exit status is the command's; 125 where usernet failed, 126 where the command could not be executed, 127
where it was not found.`,
		examples: `usernet run --rm -it -- sh
usernet run -d --name web -p 8080:80 -- python3 -m http.server 80
usernet run --rm --network mynet --network name=second,ip=10.7.0.9 -- ip addr
usernet run --rm --egress deny --allow-egress 10.1.0.0/16 --allow-egress dns -- make
usernet run --rm --network container:web -- curl localhost
usernet run --rm -it --rootfs ./alpine -- sh
usernet run -d --restart on-failure:3 -- ./job
usernet run --rm --memory 512m --cpus 1.5 --pids-limit 100 -- make test
usernet run --rm --cap-add NET_ADMIN -- tc qdisc add dev eth0 root netem delay 50ms`,
		flags: map[string]completer{
			"network":      networkModes,
			"link":         running,
			"egress":       egressModes,
			"env-file":     files,
			"label-file":   files,
			"rootfs":       files,
			"workdir":      files,
			"device":       files,
			"cap-add":      words(append([]string{"ALL"}, profile.All.Names()...)...),
			"cap-drop":     words(append([]string{"ALL"}, profile.All.Names()...)...),
			"security-opt": words("seccomp=unconfined", optNoNewPrivs, optSystemPaths, optNoProc),
			"volume":       files,
			"restart":      words("no", "on-failure", "always", "unless-stopped"),
			"stop-signal":  signals,
			"userns":       words(sandbox.UserNSAuto, sandbox.UserNSHost, sandbox.UserNSRange),
		},
	},
	"attach": {
		group: groupContainers,
		long: `Give a network to a process that something else started in a user and network namespace of its own:
rootless Podman, bubblewrap, unshare. usernet never signals such a process; detach, or its end, takes the interfaces
away again. With --vm-socket it is a virtual machine that gets a network: it finds a Unix socket at that path, and
configures itself by DHCP and router advertisements.`,
		examples: `usernet attach --pid 4711 --name box --network mynet
usernet attach --netns /run/user/1000/netns/box --name box -p 8080:80
usernet attach --vm-socket /run/user/1000/vm1.sock --name vm1 --network mynet --mac-address 52:54:00:00:00:01`,
		flags: map[string]completer{
			"network": networkModes,
			"link":    running,
			"egress":  egressModes,
			"netns":   files,
			"userns":  files,

			"vm-socket":  files,
			"vm-connect": files,
		},
	},
	"detach": {group: groupContainers, examples: "usernet detach box", args: []completer{running}, more: true},
	"exec": {group: groupContainers, examples: `usernet exec -it web sh
usernet exec -e DEBUG=1 -w /srv web ./reload`,
		args:  []completer{running, files},
		more:  true,
		flags: map[string]completer{"env-file": files},
	},
	"ps": {group: groupContainers, examples: `usernet ps -a
usernet ps --filter network=mynet --format '{{.Names}}: {{.Ports}}'`,
		flags: map[string]completer{"filter": filterKeys(
			"expose", "exited", "health", "id", "label", "name", "network", "publish", "status",
		)},
	},
	"logs": {group: groupContainers, examples: `usernet logs -f --tail 20 web
usernet logs --since 10m --timestamps web`, args: []completer{containers}},
	"inspect": {group: groupContainers, examples: `usernet inspect web
usernet inspect -f '{{.NetworkSettings.Networks.mynet.IPAddress}}' web`,
		args:  []completer{anything},
		more:  true,
		flags: map[string]completer{"type": words("container", "network")},
	},
	"start": {group: groupContainers, examples: "usernet start web", args: []completer{containers}, more: true},
	"restart": {
		group:    groupContainers,
		examples: "usernet restart -t 2 web",
		args:     []completer{containers},
		more:     true,
		flags:    map[string]completer{"signal": signals},
	},
	"update": {
		group: groupContainers,
		examples: `usernet update --memory 1g --cpus 2 web
usernet update --label-add app=frontend --label-rm canary web
usernet update --egress deny --allow-egress '*.debian.org:443' web`,
		args:  []completer{containers},
		more:  true,
		flags: map[string]completer{"restart": words("no", "on-failure", "always", "unless-stopped")},
	},
	"stop": {
		group:    groupContainers,
		examples: "usernet stop -t 2 web",
		args:     []completer{running},
		more:     true,
		flags:    map[string]completer{"signal": signals},
	},
	"kill": {
		group:    groupContainers,
		examples: "usernet kill -s HUP web",
		args:     []completer{running},
		more:     true,
		flags:    map[string]completer{"signal": signals},
	},
	"wait": {
		group:    groupContainers,
		examples: "usernet wait job && echo ended",
		args:     []completer{containers},
		more:     true,
	},
	"rename": {group: groupContainers, examples: "usernet rename web old-web", args: []completer{containers}},
	"rm":     {group: groupContainers, examples: "usernet rm -f web", args: []completer{containers}, more: true},
	"port": {group: groupContainers, examples: `usernet port web
usernet port web 80/tcp
usernet port add web 8443:443`, args: []completer{running}},
	"port add": {examples: "usernet port add web 8443:443", args: []completer{running, nothing}, more: true},
	"port rm":  {examples: "usernet port rm web 8443:443", args: []completer{running, nothing}, more: true},
	"capture": {
		group: groupNetworks,
		long: `Record the packets of a container's interfaces, of those on a network, or of all, as pcapng, in which
each interface has its container's name. FILTER is an expression of pcap-filter(7), in which containers' names are
hosts. It ends by Ctrl-C, or by one of the limits. While it runs, connections that begin do not bypass the interfaces.
Live: usernet capture --all -w - | wireshark -k -i -`,
		examples: `usernet capture web -w web.pcapng
usernet capture mynet -w db.pcapng -c 1000 tcp port 5432 and host db
usernet capture --all -w all.pcapng --rotate-size 100m --files 5`,
		args:  []completer{anything, nothing},
		flags: map[string]completer{"write": files},
	},
	"top": {
		group: groupNetworks,
		long: `Watch what containers do on their networks: traffic, flows with names in the place of addresses, DNS
questions, frames that were dropped, and published ports; with a name, those of one container. ? shows the keys.
Without a terminal it prints one sample. A container's processes are listed by docker top.`,
		examples: `usernet top
usernet top web --interval 5s`,
		args: []completer{containers},
	},
	"dashboard": {
		group: groupNetworks,
		long: `Serve a page to your browser on this machine's loopback, until Ctrl-C: networks and containers as a
graph, live rates, flows, names asked for, what was refused by which rule, and published ports. Containers can be
connected and disconnected there, ports published and unpublished, flows closed. The link that it prints is good once,
for five minutes; Enter prints another one.`,
		examples: `usernet dashboard
usernet dashboard --listen 127.0.0.1:8090`,
	},
	"stats": {
		group: groupContainers,
		long: `Show how much processor time and memory the processes of containers use, and their traffic, as docker
stats does; again and again until interrupted. Without names it shows all that run. usernet does not measure block
I/O.`,
		examples: `usernet stats
usernet stats --no-stream --format '{{.Name}}: {{.CPUPerc}} {{.MemUsage}}' web`,
		args: []completer{containers},
		more: true,
	},
	"trace": {
		group: groupNetworks,
		long: `Say step by step what becomes of a container's packets to a destination: name, route, switch, policy
with the flag that would change it, the host's socket, the path. Then try it from the container's own namespace, and
say whether that agrees. Without a port an echo request is sent. The exit status is 0 where it got through, 2 where
the destination refused, 3 where a policy did, 4 where there is no way, 5 without an answer, 6 where the name has no
address, 7 where nothing can be tried, 8 where something else happened than was predicted, and 1 for errors.`,
		examples: `usernet trace web example.com:443
usernet trace web db
usernet trace --udp --json web 192.0.2.53:53
usernet trace --dry-run web 169.254.169.254:80`,
		args: []completer{running, nothing},
	},
	"flows": {group: groupNetworks, args: []completer{running}},
	"dns":   {group: groupNetworks},
	"dns query": {examples: `usernet dns query --as web db
usernet dns query --as web example.com AAAA`,
		args:  []completer{nothing, words("A", "AAAA", "PTR", "SRV", "MX", "TXT", "NS")},
		flags: map[string]completer{"as": running},
	},
	"network": {group: groupNetworks},
	"network create": {examples: `usernet network create mynet
usernet network create --subnet 10.7.0.0/24 --gateway 10.7.0.254 --aux-address printer=10.7.0.9 office
usernet network create --ipv6 --internal -o com.docker.network.driver.mtu=9000 backend
usernet network create --egress deny --allow-egress '*.debian.org:443' build
usernet network create --config-only --subnet 10.8.0.0/24 settings; usernet network create --config-from settings made`,
		args: []completer{nothing},
		flags: map[string]completer{
			"driver":      words("bridge", "macvlan", "overlay", "vxlan"),
			"scope":       words("local", "global"),
			"config-from": networks,
			"opt":         options,
			"egress":      egressModes,
		}},
	"network ls": {examples: `usernet network ls --filter type=custom --format '{{.Name}} {{.Labels}}'`,
		flags: map[string]completer{
			"filter": filterKeys("dangling", "driver", "id", "label", "name", "scope", "type"),
		}},
	"network inspect": {examples: `usernet network inspect mynet
usernet network inspect --verbose mynet    # switch ports, and what was dropped and why`,
		args: []completer{networks},
		more: true,
	},
	"network rm": {examples: "usernet network rm mynet", args: []completer{networks}, more: true},
	"network prune": {
		examples: "usernet network prune -f --filter until=24h",
		flags:    map[string]completer{"filter": filterKeys("label", "until")},
	},
	"network connect": {examples: `usernet network connect --alias db mynet web
usernet network connect --ip 10.7.0.9 --gw-priority 1 office web
usernet network connect --interface lan0 --route 10.1.0.0/16=10.7.0.254 --vlan 20 office web`,
		args:  []completer{networks, containers},
		flags: map[string]completer{"link": running, "driver-opt": endpointOptions},
	},
	"network policy": {
		long: `Show or change which containers of a network reach each other, by their labels, names and networks, on
one host or many. The first rule that is about a packet decides; docs/policy.md has them all.`,
		examples: `usernet network policy shop --file policy.txt
usernet network policy shop`,
		args:  []completer{networks},
		more:  true,
		flags: map[string]completer{"file": files},
	},
	"network update": {
		long: `Change where the containers of networks may connect to outside, also for those that run, and on all
hosts of a cluster. What is not given stays. Connections that there are go on (usernet flows shows them, and usernet
top closes them).`,
		examples: `usernet network update --egress deny --allow-egress '*.debian.org:443' --allow-egress 10.1.0.0/16 build
usernet network update --allow-egress '' build`,
		args:  []completer{networks},
		more:  true,
		flags: map[string]completer{"egress": egressModes},
	},
	"network disconnect": {examples: "usernet network disconnect mynet web", args: []completer{networks, containers}},
	"network events": {
		examples: "usernet network events --since 10m --until 0s",
		flags:    map[string]completer{"filter": filterKeys("container", "event", "label", "network")},
	},
	"cluster": {
		group: groupNetworks,
		long: `Manage the cluster that this host is in. Hosts become a cluster by a key-value store that all of them
reach, or without one by each other: usernet serve --cluster-store, or --cluster-join. Networks made with --driver
overlay are then seen on all hosts.`,
	},
	"cluster ls": {examples: "usernet cluster ls --json"},
	"cluster inspect": {
		examples: "usernet cluster inspect\nusernet cluster inspect -f '{{.Path}} {{.RTT}}' beta",
		args:     []completer{hosts},
		more:     true,
	},
	"cluster leave": {
		examples: "usernet cluster leave\nusernet cluster leave beta    # which will not come back",
		args:     []completer{hosts},
	},
	"cluster expose": {
		long: `Have containers of other hosts, on networks that span hosts, reach a subnet through this host: a
network behind it, to which its gateway connects by the host's own sockets. Other hosts use it where they accept it:
usernet serve --cluster-accept-routes.`,
		examples: "usernet cluster expose 198.51.100.0/24",
		args:     []completer{nothing},
	},
	"cluster unexpose": {examples: "usernet cluster unexpose 198.51.100.0/24", args: []completer{nothing}},
	"cluster key":      {examples: "usernet cluster key > cluster.key"},
	"uplink": {
		group: groupNetworks,
		long: `See which devices of physical networks this user may use: a macvtap, or a TAP in a bridge or with
routes of the host's, that an administrator has made for the user. Networks made with --driver macvlan -o
parent=DEVICE[.VLAN] put containers there, with addresses of their own.`,
	},
	"uplink check": {
		examples: "usernet uplink check\nusernet uplink check macvtap0",
		args:     []completer{nothing},
		more:     true,
	},
	"events": {group: groupDaemon, examples: `usernet events --filter type=network
usernet events --since 10m --until 0s --format json`,
		flags: map[string]completer{"filter": filterKeys("container", "event", "label", "network", "scope", "type")},
	},
	"serve": {
		group: groupDaemon,
		long: `Run the daemon in the foreground, until SIGTERM, SIGINT or an error. Containers go on when it ends,
without a network until it is there again. Without one, run starts a daemon in the background, which ends five minutes
after the last container.`,
		examples: `usernet serve
usernet serve --socket /run/user/1000/usernet/usernet.sock --log-level debug
usernet serve --cluster-store etcd://192.0.2.4:2379
usernet serve --cluster-join 192.0.2.1,192.0.2.2 --cluster-key cluster.key
usernet serve --flannel etcd://192.0.2.4:2379
usernet serve --docker-store etcd://192.0.2.4:2379 --cluster-advertise 192.0.2.3
usernet serve --bgp-asn 65000 --bgp-neighbor 192.0.2.254`,
		flags: map[string]completer{
			"config":      files,
			"socket":      files,
			"state-dir":   files,
			"cluster-key": files,

			"bgp-password-file":  files,
			"metrics-token-file": files,
			"log-level":          words("debug", "info", "warn", "error"),
			"log-format":         words("text", "json"),
		},
	},
	"config": {
		group: groupDaemon,
		long: `Check the configuration of the daemon: a file with flags of serve, options of new networks, and
networks to make. Flags go before variables of the environment (USERNET_LOG_LEVEL for --log-level), these before the
file, and it before what usernet takes by itself.`,
	},
	"config check": {
		examples: "usernet config check\nusernet config check ./config.toml",
		args:     []completer{files},
	},
	"doctor": {
		group: groupDaemon,
		long: `Look for known problems, and gather one report: versions, the machine, usernet check, the
configuration, networks, containers, counters, drops, limits, cluster, uplinks, the store and the end of the log.
Values of the environment and labels of containers, command lines, passwords in URLs, tokens and keys are left out. It
works without a daemon, and with one that hangs.`,
		examples: "usernet doctor\nusernet doctor -o report.tar.gz",
		flags:    map[string]completer{"output": files, "log": files},
	},
	"explain": {
		group: groupDaemon,
		long: `Show what an error means and what to do about it: errors end with the name of their topic. It is a
section of docs/troubleshooting.md, which is part of the program. Without a topic it lists all.`,
		examples: "usernet explain\nusernet explain port-is-already-allocated",
		args:     []completer{topics},
	},
	"info":     {group: groupDaemon, examples: "usernet info --json"},
	"check":    {group: groupDaemon, examples: "usernet check --json"},
	"shutdown": {group: groupDaemon, examples: "usernet shutdown"},
	"version":  {group: groupDaemon, examples: "usernet version --json"},
}
