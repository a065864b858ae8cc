package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func portCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "port CONTAINER [PORT[/PROTO]]",
		Short: "List a container's published ports, add and remove them while it runs",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			bound, err := cl.Ports(c.Context(), args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				printPublished(bound, true)
				return nil
			}
			want := args[1]
			if !strings.Contains(want, "/") {
				want += "/tcp"
			}
			var match []api.Published
			for _, b := range bound {
				if fmt.Sprintf("%d/%s", b.Port, b.Proto) == want {
					match = append(match, b)
				}
			}
			if len(match) == 0 {
				return fmt.Errorf("no public port '%s' published for %s", want, args[0])
			}
			printPublished(match, false)
			return nil
		},
	}
	c.AddCommand(
		changePorts(
			"add CONTAINER -p PORTS...",
			"Publish ports of a running container: all of them or, with an error, none",
			func(c *cobra.Command, cl *api.Client, ref string, ports []network.PortBinding) error {
				bound, err := cl.PortsAdd(c.Context(), ref, ports)
				printPublished(bound, true)
				return err
			},
		),
		changePorts(
			"rm CONTAINER -p PORTS...",
			"Take published ports of a running container away; connections through them go on",
			func(c *cobra.Command, cl *api.Client, ref string, ports []network.PortBinding) error {
				return cl.PortsRemove(c.Context(), ref, ports)
			},
		),
	)
	return c
}

// changePorts makes a command that does something with a list of ports.
func changePorts(
	use, short string,
	do func(c *cobra.Command, cl *api.Client, ref string, ports []network.PortBinding) error,
) *cobra.Command {
	var publish []string
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ports, err := network.ParsePorts(append(publish, args[1:]...))
			if err != nil {
				return err
			}
			if len(ports) == 0 {
				return errors.New("no ports: give them with -p, as `usernet run` takes them")
			}
			cl, err := client()
			if err != nil {
				return err
			}
			return do(c, cl, args[0], ports)
		}}
	c.Flags().StringArrayVarP(&publish, "publish", "p", nil, "[HOSTIP:][HOSTPORT:]PORT[/PROTO], ranges as well")
	return c
}

func printPublished(list []api.Published, inside bool) {
	for _, b := range list {
		if inside {
			fmt.Printf("%d/%s -> ", b.Port, b.Proto)
		}
		fmt.Println(b.Host)
	}
}
