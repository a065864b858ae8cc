// Command usernet-sandbox is the program that runs inside sandboxes and on their threshold: their init, the agents that
// configure their networks, and the helper that starts agents for a confined daemon. `make build` carries it inside of
// usernet (cmd/usernet/embedded), so that what a container can reach is small and starts fast. Nobody runs it by hand.
package main

import (
	"fmt"
	"os"

	"github.com/usernet/usernet/bypass"
	"github.com/usernet/usernet/sandbox"
)

func main() {
	sandbox.Main(bypass.Role)
	fmt.Fprintln(os.Stderr, "usernet-sandbox: started by usernet only")
	os.Exit(125)
}
