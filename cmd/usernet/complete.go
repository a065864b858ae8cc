package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// completeWait bounds what a Tab key waits for the daemon.
const completeWait = 2 * time.Second

// completer lists what a word may be. It is nil, and so the shell completes files, where names says nothing.
type completer struct {
	names func(ctx context.Context, cl *api.Client) []string
	files bool // what is no name is a file
	space bool // no space behind a completed word: it goes on with a value
}

var (
	files      = completer{files: true}
	nothing    = completer{}
	containers = completer{names: containerNames(true)}
	running    = completer{names: containerNames(false)}
	networks   = completer{names: networkNames}
	hosts      = completer{names: hostsOfCluster}
	anything   = completer{names: func(ctx context.Context, cl *api.Client) []string {
		return append(containerNames(true)(ctx, cl), networkNames(ctx, cl)...)
	}}
	networkModes = completer{names: func(ctx context.Context, cl *api.Client) []string {
		list := networkNames(ctx, cl)
		for _, c := range containerNames(false)(ctx, cl) {
			list = append(list, "container:"+c)
		}
		return list
	}}
	signals         = words("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2")
	options         = optionNames(network.NetworkOptions)
	endpointOptions = optionNames(network.EndpointOptions)
	egressModes     = words("allow", "allow,no-rebind", "deny", "deny,no-rebind", "no-rebind")
)

// optionNames completes to options, and with their values where they have few.
func optionNames(list []network.Option) completer {
	var names []string
	for _, o := range list {
		if len(o.Values) == 0 {
			names = append(names, o.Name+"=")
		}
		for _, v := range o.Values {
			names = append(names, o.Name+"="+v)
		}
	}
	c := words(names...)
	c.space = true
	return c
}

// words completes to one of list.
func words(list ...string) completer {
	return completer{names: func(context.Context, *api.Client) []string { return list }}
}

// filterKeys completes the keys of --filter; the values are typed.
func filterKeys(keys ...string) completer {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k + "="
	}
	c := words(list...)
	c.space = true
	return c
}

func containerNames(all bool) func(context.Context, *api.Client) []string {
	return func(ctx context.Context, cl *api.Client) []string {
		list, err := cl.Containers(ctx, api.ContainerList{All: all})
		if err != nil {
			return nil
		}
		var names []string
		for _, c := range list {
			for _, n := range c.Names {
				names = append(names, strings.TrimPrefix(n, "/"))
			}
		}
		return names
	}
}

func networkNames(ctx context.Context, cl *api.Client) []string {
	list, err := cl.Networks(ctx, nil)
	if err != nil {
		return []string{network.BridgeName, network.HostName, network.NoneName} // those are always there
	}
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names
}

func hostsOfCluster(ctx context.Context, cl *api.Client) []string {
	v, err := cl.Cluster(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, h := range v.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// function is what cobra calls for a flag's value.
func (k completer) function(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	if k.files {
		return nil, cobra.ShellCompDirectiveDefault
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if k.space {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	if k.names == nil {
		return nil, directive
	}
	cl, err := client()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeWait)
	defer cancel()
	return slices.DeleteFunc(
		slices.Clone(k.names(ctx, cl)),
		func(s string) bool { return !strings.HasPrefix(s, word) },
	), directive
}

// complete is what cobra calls for an argument. What was named before is not offered again.
func (p page) complete(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	i := len(args)
	if i >= len(p.args) && p.more {
		i = len(p.args) - 1
	}
	if i >= len(p.args) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, directive := p.args[i].function(c, args, word)
	return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(args, s) }), directive
}
