// Package engines runs real container engines, as Debian ships them, over usernet in the place of their own network
// programs: Podman, RootlessKit, rootless Docker. `make engines` (scripts/engines.sh) makes the world around them.
//
// With USERNET_ENGINES_SLIRP4NETNS or USERNET_ENGINES_PASTA the tests run over another program in that place, so that a
// test can be held against the original:
//
//	USERNET_ENGINES_SLIRP4NETNS=/usr/bin/slirp4netns make engines
package engines
