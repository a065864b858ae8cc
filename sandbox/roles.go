package sandbox

import (
	"fmt"
	"os"
)

// The roles, as first argument of the binary. No command has such a name.
const (
	roleAgent   = "__agent"   // configures a network namespace, then ends
	roleInit    = "__init"    // PID 1 of a sandbox
	roleJoin    = "__join"    // starts an init beside another sandbox's network
	roleSockets = "__sockets" // makes sockets in a network namespace until nobody wants more
	roleDoorman = "__doorman" // enters sandboxes for a daemon that is confined
)

// controlFD is the descriptor at which a role finds its socket: the first behind the standard streams.
const controlFD = 3

// Main runs the role that the binary was started in and ends the process; started in none, it returns.
func Main() {
	if len(os.Args) < 2 {
		return
	}
	roles := map[string]func() error{roleAgent: runAgent, roleInit: runInit, roleJoin: runJoin, roleSockets: runSockets, roleDoorman: runDoorman}
	run := roles[os.Args[1]]
	if run == nil {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "usernet:", err)
		os.Exit(125)
	}
	os.Exit(0)
}
