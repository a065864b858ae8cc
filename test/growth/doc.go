// Command growth measures how a daemon's times and memory grow with what it has: endpoints on one network, networks,
// names, published ports and flows.
//
//	go run ./test/growth [--only REGEXP] [--most N] [--usernet BINARY] [--markdown FILE]
//
// # What it does
//
// It starts a daemon with directories of its own for each table, as the user who calls it, and fills it by the API.
// Endpoints are virtual machines' sockets (usernet attach --vm-socket), which need no namespaces and no processes, so
// that what is measured is the daemon's own. A machine that has flows is played by this program, which sends datagrams
// as frames and answers ARP requests (RFC 826).
//
// At each size it measures what one more takes, what a change takes, and how long the daemon needs to end and to serve
// all that there is again. Times are medians. Memory is what the daemon has of its own (RssAnon in /proc/PID/status,
// proc(5)), with garbage in it that Go's collector has not yet taken. Processor time is the daemon's, for each of what
// was added since the row before: it is blurred less by other programs than times are.
//
// A published port and a flow have a descriptor each. Where the daemon's hard limit (RLIMIT_NOFILE) is too low for a
// size, the size is left out, and the report says so.
package main
