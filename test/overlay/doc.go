// Package overlay has the end-to-end tests of networks that span hosts. Each test has up to three hosts: network
// namespaces on one Ethernet, in each of them a daemon of an ordinary user of its own. `make overlay` makes the world
// (scripts/overlay.sh), and runs the tests in it as root; without it they do nothing.
package overlay
