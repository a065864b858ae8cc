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
// One test: make e2e TESTFLAGS='-run TestPublishedPort -v'
package test
