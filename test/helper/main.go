// Command helper is the end-to-end tests' client and server inside sandboxes, for what no stock
// program does or says plainly: errno names, exact byte counts, thousands of connections, raw frames.
// It is built static, so that it also runs in a sandbox with another root.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
)

// commands are the subcommands; run gets the command's own arguments and returns what makes the process fail; usage
// is printed after the name.
var commands = map[string]struct {
	run   func(args []string) error
	usage string
}{
	"ask": {ask, "NETWORK ADDRESS TEXT TIMEOUT: sends a text, prints what comes back at first"},
	"flood": {
		flood,
		"KIND INTERFACE GATEWAY-MAC OWN-ADDRESS TARGET: sends frames as fast as it can until its standard input ends",
	},
	"latency": {
		latency,
		"NETWORK ADDRESS COUNT: makes requests one after another, prints how long they took in microseconds",
	},
	"greedy":    {greedy, "ADDRESS COUNT: opens as many connections as it gets, reads nothing, and keeps them"},
	"httpserve": {httpServe, "ADDR: serves until it is killed, prints each request"},
	"tcpserve": {
		tcpServe,
		"ADDR echo|addr|digest: serves until it is killed: sends back, tells the client its address, or answers with count and SHA-256",
	},
	"tcpdial": {
		tcpDial,
		"ADDR [TIMEOUT] [multipath|port=PORT|device=NAME...]: connects, prints ok and what the server says, or the error's name",
	},
	"tcpsend": {
		tcpSend,
		"ADDR BYTES|stdin: sends random bytes (until a line comes on standard input), compares the digest that comes back",
	},
	"tcpmany": {
		tcpMany,
		"ADDR COUNT [wait]: opens COUNT connections at once, has a line echoed over each (and waits for standard input)",
	},
	"tcphold": {
		tcpHold,
		"ADDR [stdin] [multipath|port=PORT|device=NAME...]: sends what comes on standard input, prints what comes back and how it ended",
	},
	"tcprequests": {
		tcpRequests,
		"ADDR SECONDS: has single bytes echoed over one connection, and prints how many there were in a second",
	},
	"tcpgap": {
		tcpGap,
		"ADDR: has single bytes echoed until a line comes on standard input, prints the longest time and the segments sent again",
	},
	"tcpstall": {
		tcpStall,
		"[serve-]send|receive ADDR [HOW...]: a connection on which it sends until nothing is taken, or reads nothing",
	},
	"dnsmany": {
		dnsMany,
		"SERVER NAME: asks for NAME until a line comes on standard input, prints how many questions failed",
	},
	"dnsserve":  {dnsServe, "ADDR NAME TTL ADDRESS: answers questions for NAME with ADDRESS"},
	"dnsflood":  {dnsFlood, "SERVER DOMAIN: asks for ever more names in DOMAIN and reads no answer"},
	"udpserve":  {udpServe, "ADDR [addr]: sends each datagram back, or the sender's address"},
	"udpdial":   {udpDial, "ADDR [BYTES]: sends a datagram and compares what comes back, or prints the error's name"},
	"udpmap":    {udpMap, "ADDR ADDR...: sends from one socket to servers that answer with the sender's address"},
	"stun":      {stun, "ADDR ADDR...: asks STUN servers from one socket, prints the addresses that they see"},
	"stunserve": {stunServe, "ADDR: tells each client its address (RFC 8489)"},
	"l2send":    {l2Send, "IFACE ETHERTYPE DESTINATION TEXT [SOURCE]: sends a frame"},
	"l2recv": {
		l2Recv,
		"IFACE ETHERTYPE SECONDS: prints source and text of the first frame of that type, or nothing",
	},
	"l2raw":    {l2Raw, "IFACE COUNT HEX...: sends each frame COUNT times"},
	"l2watch":  {l2Watch, "IFACE SECONDS WORD LAST: prints incoming frames with WORD in them until one with LAST"},
	"udpempty": {udpEmpty, "ADDR: sends an empty datagram, prints how many bytes come back"},
	"mcsend":   {multicastSend, "IFACE GROUP:PORT WORD: sends WORD to a multicast group"},
	"mcrecv":   {multicastRecv, "IFACE GROUP:PORT: joins a multicast group, prints the first datagram"},
	"winsize":  {windowSize, "(no argument): prints the terminal's columns and rows"},
	"terminal": {
		inTerminal,
		"COMMAND...: runs it in a terminal of 80 columns and 24 rows, and of 100 and 30 once it has printed \"resize\"",
	},
	"trace": {
		trace,
		"(no argument): tries to trace what usernet sends into sandboxes until its standard input ends, prints a report",
	},
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]].run == nil {
		fmt.Fprintln(os.Stderr, "usage: helper COMMAND ARG...")
		for _, name := range slices.Sorted(maps.Keys(commands)) {
			fmt.Fprintf(os.Stderr, "  %-9s %s\n", name, commands[name].usage)
		}
		os.Exit(2)
	}
	if err := commands[os.Args[1]].run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
}

// arg returns the i-th argument, or def where there is none.
func arg(args []string, i int, def string) string {
	if i < len(args) {
		return args[i]
	}
	return def
}
