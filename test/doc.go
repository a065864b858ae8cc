// Package test holds the end-to-end tests: the real binary, real user and network namespaces, real
// TAPs and real programs (busybox, curl, dig, ping, iperf3, socat, the docker CLI), as an ordinary user.
//
// The idea: the tests bring their own world. The test binary starts itself again in a user, network and
// mount namespace (see world_test.go), where it is root for as long as it takes to set up addresses, a
// second machine behind a cable and a resolver, and then once more as an ordinary user without
// capabilities. So what "the host" is, what is unreachable and what a kernel setting forbids is the same
// everywhere, and nothing leaves the machine:
//
//	         peer (another machine)                 world (the host, as usernet sees it)
//	192.0.2.100  2001:db8::100  ----- cable ----- 192.0.2.1  2001:db8::1   resolver 192.0.2.53
//	answers "unreachable" for 198.51.100.0/24                daemon, tests, and the sandboxes inside
//	swallows 203.0.113.0/24
//
// Each test starts a daemon of its own on a private socket (see daemon_test.go); when the test ends, the
// daemon has to end cleanly, leave no process behind, and have met no data race.
//
//	d := startDaemon(t)                                a daemon for the length of the test
//	d.in(t)                                            the same daemon, for a subtest
//	d := dual(t)                                       a daemon with an IPv6 network, and a container "box" on it
//	d.ok, d.try, d.fails(words, args...)               usernet has to succeed; may do as it likes; has to fail
//	                                                     with these words
//	d.json(&v, args...), d.ask(path, &v)               usernet --json and a GET request, decoded: no table is
//	                                                     read by a pattern
//	d.idle(name, flags...), d.container(name, f, cmd)  a container that sleeps, or runs a command
//	d.serve(name, flags, cmd...)                       the same, and waits until it says "listening"
//	d.exec, d.says(words, name, cmd...)                a command in a container; one that has to succeed and print words
//	d.hold(name, address), d.talk(name, args...)       a connection that a container keeps: h.echoes(line),
//	                                                     h.wants(line), h.next()
//	d.pastTheGateway(connect), d.once(counter, do)     a busy machine may fall back to the gateway: these try
//	                                                     until one does not
//	d.flows(name), d.counter(name), d.address(name)    what the daemon says
//	d.stop(signal), d.start(), d.takeOver()            the daemon ends, or is killed; starts again; is replaced
//	helper ...                                         clients and servers (test/helper; without arguments it lists them)
//	listen, listenUDP, startAtPeer, atPeer, asRoot     the host's and the peer's servers; commands of the world's root
//	eventually(t, check)                               the only way to wait: a condition, until patience is over
//
// A test may be run on a machine with a load of thirty. Nothing waits for a time, nothing that is to happen is given
// less than patience, and only what must not happen ("no answer within 1 s") has a short limit.
//
// Tests that leave the world as it is call t.Parallel and run four at a time, when all others are over. Those others
// change what tests share: addresses, routes, resolv.conf (asRoot and atPeer other than for clients), the environment
// (t.Setenv), or they count what reaches the resolver.
//
// One test: make e2e TESTFLAGS='-run TestPublishedPort -v'. Sixteen of them in less than a minute: make smoke.
package test
