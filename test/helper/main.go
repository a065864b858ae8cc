// Command helper is the end-to-end tests' client and server inside sandboxes, for what no stock
// program does or says plainly: errno names, exact byte counts, thousands of connections, raw frames.
// It is built static, so that it also runs in a sandbox with another root.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

// commands are the subcommands; each gets its own arguments and returns what makes the process fail.
var commands = map[string]func(args []string) error{
	"ask":       ask,
	"tcpserve":  tcpServe,
	"tcpdial":   tcpDial,
	"tcpsend":   tcpSend,
	"tcpmany":   tcpMany,
	"tcphold":   tcpHold,
	"tcpgap":    tcpGap,
	"tcpstall":  tcpStall,
	"dnsmany":   dnsMany,
	"dnsserve":  dnsServe,
	"dnsflood":  dnsFlood,
	"udpserve":  udpServe,
	"udpdial":   udpDial,
	"udpmap":    udpMap,
	"stun":      stun,
	"stunserve": stunServe,
	"l2send":    l2Send,
	"l2recv":    l2Recv,
	"l2raw":     l2Raw,
	"l2watch":   l2Watch,
	"udpempty":  udpEmpty,
	"mcsend":    multicastSend,
	"mcrecv":    multicastRecv,
	"winsize":   windowSize,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		var names []string
		for name := range commands {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintln(os.Stderr, "usage: helper", strings.Join(names, "|"), "ARG...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
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
