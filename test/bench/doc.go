// Command bench measures usernet's throughput with iperf3 beside slirp4netns and pasta (where they are
// installed), in the same run and in turns, and what the kernel itself does without a userspace network
// as the limit. `make bench` runs it as an ordinary user.
//
// Everything happens inside a user and network namespace that it makes, whose only addresses are on the
// loopback device: "the host" is 192.0.2.1 there, for usernet and the peers alike, and nothing leaves
// the machine. Each number is the median of several runs; in each run every tool is measured once, one
// after the other, so that a machine that slows down or speeds up does so for all.
package main
