package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func portCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "port CONTAINER [PORT[/PROTO]]", Short: "List a container's published ports, add and remove them while it runs", Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			var bound []api.Published
			if err := cl.Do(c.Context(), http.MethodGet, portsOf(args[0]), nil, &bound); err != nil {
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
	c.AddCommand(changePorts("add CONTAINER -p PORTS...", "Publish ports of a running container: all of them or, with an error, none", http.MethodPost),
		changePorts("rm CONTAINER -p PORTS...", "Take published ports of a running container away; connections through them go on", http.MethodDelete))
	return c
}

func portsOf(container string) string { return "/usernet/containers/" + container + "/ports" }

// changePorts makes the command that sends a list of ports with the given method.
func changePorts(use, short, method string) *cobra.Command {
	var publish []string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
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
		if method == http.MethodDelete {
			return cl.Do(c.Context(), method, portsOf(args[0]), ports, nil)
		}
		var bound []api.Published
		if err := cl.Do(c.Context(), method, portsOf(args[0]), ports, &bound); err != nil {
			return err
		}
		printPublished(bound, true)
		return nil
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
