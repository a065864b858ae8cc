package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/runtimes/cni"
	"github.com/usernet/usernet/runtimes/gvproxy"
	"github.com/usernet/usernet/runtimes/libnetwork"
	"github.com/usernet/usernet/runtimes/netavark"
	"github.com/usernet/usernet/runtimes/pasta"
	"github.com/usernet/usernet/runtimes/rootlessport"
	"github.com/usernet/usernet/runtimes/slirp4netns"
)

// places are the programs whose places usernet takes: each is its whole command line, and returns the exit status. A
// symbolic link of that name to usernet is the program, as is `usernet NAME`.
var places = map[string]func(program string, args []string) int{
	"dockerd":  dockerd,
	"gvproxy":  func(_ string, args []string) int { return gvproxy.Main(client, args, os.Stderr) },
	"netavark": func(_ string, args []string) int { return netavark.Main(version, args) },
	"pasta": func(program string, args []string) int {
		return pasta.Main(program, version, client, args, os.Stdout, os.Stderr)
	},
	"usernet-cni": func(_ string, args []string) int {
		if len(args) == 1 && args[0] == cni.RelayArgument {
			return cni.Relay(os.Stdin, os.Stdout)
		}
		return cni.Main("usernet-cni " + version + ": a CNI plugin; a container runtime calls it")
	},
	"rootlessport": func(_ string, args []string) int {
		return rootlessport.Main(args, os.Stdin, os.Stdout, os.Stderr)
	},
	"slirp4netns": func(program string, args []string) int {
		return slirp4netns.Main(program, version, client, args, os.Stdout, os.Stderr)
	},
}

// place runs the program that the binary was called as, and ends the process; called as usernet, it returns.
func place() {
	name := filepath.Base(os.Args[0])
	if run := places[name]; run != nil &&
		name != "netavark" { // netavark calls its plugins by the names of their drivers
		os.Exit(run(os.Args[0], os.Args[1:]))
	}
}

// dockerd shows Docker its plugins, and goes on as the real one.
func dockerd(_ string, args []string) int {
	dir, err := dockerPluginDir()
	if err == nil {
		err = libnetwork.Dockerd(dir, args)
	}
	fmt.Fprintln(os.Stderr, "usernet:", err)
	return 1
}

// placeCommand is `usernet NAME`, whose arguments are those of the program.
func placeCommand(name, arguments, short string) *cobra.Command {
	return &cobra.Command{
		Use:                name + " " + arguments,
		Short:              short,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return exitCode(places[name]("usernet "+name, args))
		},
	}
}
