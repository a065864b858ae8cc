package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	dockernet "github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "network",
		Short: "Manage networks",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(
		networkCreate(),
		networkLs(),
		networkInspect(),
		networkRm(),
		networkPrune(),
		networkConnect(),
		networkDisconnect(),
		networkPolicy(),
		networkUpdate(),
		eventsCommand("network"),
	)
	return c
}

// networkRow is a line of network ls; its fields are Docker's.
type networkRow struct {
	ID, Name, Driver, Scope, CreatedAt, IPv4, IPv6, Internal, Labels string
	labels                                                           map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

var networkTable = table{
	columns: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
	header: headings{
		"ID":        "NETWORK ID",
		"Name":      "NAME",
		"Driver":    "DRIVER",
		"Scope":     "SCOPE",
		"CreatedAt": "CREATED AT",
		"IPv4":      "IPV4",
		"IPv6":      "IPV6",
		"Internal":  "INTERNAL",
		"Labels":    "LABELS",
	},
}

func networkLs() *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter []string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			f, err := parseFilters(filter)
			if err != nil {
				return err
			}
			list, err := cl.Networks(c.Context(), f)
			if err != nil {
				return err
			}
			var rows []any
			for _, n := range list {
				r := networkRow{
					ID:        n.ID,
					Name:      n.Name,
					Driver:    n.Driver,
					Scope:     string(n.Scope),
					CreatedAt: n.Created.String(),
					IPv4:      fmt.Sprint(n.EnableIPv4),
					IPv6:      fmt.Sprint(n.EnableIPv6), Internal: fmt.Sprint(n.Internal), labels: n.Labels,
				}
				if !noTrunc {
					r.ID = r.ID[:12]
				}
				var labels []string
				for k, v := range n.Labels {
					labels = append(labels, k+"="+v)
				}
				slices.Sort(labels)
				r.Labels = strings.Join(labels, ",")
				rows = append(rows, r)
			}
			if quiet {
				format = "{{.ID}}"
			}
			return networkTable.print(format, rows)
		}}
	f := c.Flags()
	f.BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	f.BoolVar(&noTrunc, "no-trunc", false, "show ids in full")
	f.StringVar(&format, "format", "", "json, table, table TEMPLATE or TEMPLATE")
	f.StringArrayVarP(&filter, "filter", "f", nil, "show those that match: KEY=VALUE")
	return c
}

func networkInspect() *cobra.Command {
	var format string
	var verbose bool
	c := &cobra.Command{
		Use:   "inspect NETWORK...",
		Short: "Show networks in full",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return inspect(args, format, func(cl *api.Client, name string) (any, error) {
				n, err := cl.Network(c.Context(), name)
				if err != nil {
					return nil, err
				}
				if !verbose {
					return n, nil
				}
				v := struct {
					dockernet.Inspect
					Usernet any
				}{Inspect: n}
				v.Usernet, err = cl.NetworkDetails(c.Context(), name)
				return v, err
			})
		}}
	c.Flags().StringVarP(&format, "format", "f", "", "json or TEMPLATE")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "with the switch's ports and what was dropped, by reason")
	return c
}

func networkPrune() *cobra.Command {
	var force bool
	var filter []string
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove all unused networks",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			if !force {
				fmt.Print(
					"WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ",
				)
				var answer string
				if _, err := fmt.Scanln(&answer); err != nil || strings.ToLower(answer) != "y" {
					return nil
				}
			}
			f, err := parseFilters(filter)
			if err != nil {
				return err
			}
			deleted, err := cl.NetworksPrune(c.Context(), f)
			if err != nil {
				return err
			}
			if len(deleted) > 0 {
				fmt.Println("Deleted Networks:\n" + strings.Join(deleted, "\n"))
			}
			return nil
		}}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().StringArrayVar(&filter, "filter", nil, "remove those that match: KEY=VALUE")
	return c
}

func networkRm() *cobra.Command {
	var force bool
	c := each("rm NETWORK...", "Remove networks", func(c *cobra.Command, cl *api.Client, ref string) error {
		err := cl.NetworkRemove(c.Context(), ref)
		if force && errdefs.IsNotFound(err) {
			return errSkip
		}
		return err
	})
	c.Aliases = []string{"remove"}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not complain of networks that do not exist")
	return c
}

func networkConnect() *cobra.Command {
	var e network.EndpointSpec
	var ip, ip6, mac string
	var links, linkLocal, aliases, driverOpts, routes []string
	var priority, vlan int
	var iface string
	var dhcp bool
	c := &cobra.Command{
		Use:   "connect [flags] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if e, err = parseEndpoint(ip, ip6, mac, linkLocal, links); err != nil {
				return err
			}
			e.Aliases, e.GwPriority, e.Interface, e.DHCP = aliases, priority, iface, dhcp
			for _, s := range routes {
				r, err := network.ParseRoute(s)
				if err != nil {
					return err
				}
				e.Routes = append(e.Routes, r)
			}
			if c.Flags().Changed("vlan") {
				if e.VLAN, err = network.ParseVLAN(strconv.Itoa(vlan)); err != nil {
					return err
				}
			}
			for _, o := range driverOpts {
				if k, _, ok := strings.Cut(o, "="); !ok || k == "" {
					return errors.New("invalid key/value pair format in driver options")
				}
			}
			e.DriverOpts = keyValues(driverOpts)
			cl, err := client()
			if err != nil {
				return err
			}
			return cl.NetworkConnect(c.Context(), args[0], args[1], e)
		}}
	f := c.Flags()
	f.StringVar(&ip, "ip", "", "IPv4 address")
	f.StringVar(&ip6, "ip6", "", "IPv6 address")
	f.StringVar(&mac, "mac-address", "", "MAC address")
	f.StringSliceVar(&linkLocal, "link-local-ip", nil, "further link-local address")
	f.StringSliceVar(&aliases, "alias", nil, "another name on the network")
	f.StringArrayVar(&links, "link", nil, "add a link to another container: NAME[:ALIAS]")
	f.StringSliceVar(&driverOpts, "driver-opt", nil, "option of the interface: KEY=VALUE")
	f.IntVar(&priority, "gw-priority", 0, "the network with the highest has the default route")
	countBetween(f, "gw-priority", math.MinInt32, math.MaxInt32, "")
	f.StringVar(&iface, "interface", "", "the interface's name in the container")
	f.StringArrayVar(&routes, "route", nil, "further route by the interface, repeatable: CIDR[=GATEWAY]")
	f.IntVar(&vlan, "vlan", 0, "reach only those of the network that are in this VLAN, and the gateway")
	countBetween(f, "vlan", 0, network.MaxVLAN, "0: none")
	f.BoolVar(&dhcp, "dhcp", false, "the address is that of a DHCP server on the physical network")
	return c
}

func networkDisconnect() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "disconnect [flags] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			return cl.NetworkDisconnect(c.Context(), args[0], args[1], force)
		}}
	c.Flags().BoolVarP(&force, "force", "f", false, "even if the container cannot be entered")
	return c
}
