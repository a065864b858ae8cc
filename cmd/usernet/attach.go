package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/vm"
)

func attachCommand() *cobra.Command {
	var n netFlags
	var spec network.ContainerSpec
	var pid int
	var key, ifname string
	var unconfigured bool
	var machine vmFlags
	c := &cobra.Command{
		Use:   "attach --pid PID --name NAME [flags]",
		Short: "Give a sandbox that something else made, or a virtual machine, a network",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if machine.given() {
				if pid != 0 || spec.NetNS != "" || ifname != "" || unconfigured {
					return fmt.Errorf("a virtual machine has no network namespace: leave --pid, --netns, --interface and " +
						"--unconfigured out")
				}
				if err := n.apply(&spec); err != nil {
					return err
				}
				return machine.attach(c, api.AttachRequest{Key: key, Spec: spec})
			}
			if (pid == 0) == (spec.NetNS == "") {
				return fmt.Errorf("give the sandbox as --pid PID or --netns PATH, or a virtual machine as --vm-socket PATH")
			}
			if spec.UserNS != "" && spec.NetNS == "" {
				return fmt.Errorf("--userns goes with --netns")
			}
			if err := n.apply(&spec); err != nil {
				return err
			}
			netns, err := os.Open(cmp.Or(spec.NetNS, fmt.Sprintf("/proc/%d/ns/net", pid)))
			if err != nil {
				return fmt.Errorf("network namespace: %w", err)
			}
			defer netns.Close()
			if len(spec.Networks) == 0 {
				spec.Networks = []network.NamedEndpointSpec{{Network: spec.NetworkMode}}
			}
			spec.Networks[0].Interface = ifname
			for i := range spec.Networks {
				spec.Networks[i].Unconfigured = unconfigured
			}
			cl, err := startedClient(c.Context())
			if err != nil {
				return err
			}
			made, err := cl.Attach(c.Context(), api.AttachRequest{Key: key, Pid: pid, Spec: spec}, netns)
			if err != nil {
				return err
			}
			fmt.Println(made.ID)
			return nil
		},
	}
	n.add(c.Flags())
	machine.add(c.Flags())
	c.Flags().IntVar(&pid, "pid", 0, "a process in the sandbox")
	c.Flags().StringVar(&spec.NetNS, "netns", "", "the sandbox's network namespace")
	c.Flags().StringVar(&spec.UserNS, "userns", "", "the user namespace that owns it (found by itself)")
	c.Flags().StringVar(
		&key,
		"key",
		"",
		"a key of your choice, with which the command can be repeated, and `usernet detach --key` ends it",
	)
	c.Flags().StringVar(
		&ifname,
		"interface",
		"",
		"the interface's name in the sandbox, on its first network (eth0, eth1 ...)",
	)
	c.Flags().BoolVar(
		&unconfigured,
		"unconfigured",
		false,
		"leave the interfaces without addresses and routes: something else sets those that are reserved",
	)
	c.Flags().BoolVar(&spec.ShareAPI, "share-api", false, "answer requests to usernet's API from within the sandbox")
	c.Flags().StringVar(&spec.Name, "name", "", "the container's name")
	c.Flags().StringVar(&spec.Hostname, "hostname", "", "one more name for it")
	return c
}

func detachCommand() *cobra.Command {
	c := each(
		"detach NAME...",
		"Take usernet's interfaces out of attached sandboxes",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			k, err := cl.Container(c.Context(), ref)
			if err != nil {
				return err
			}
			if !k.Attached {
				return fmt.Errorf("container %s was not attached: stop it with `usernet stop %s`", k.Name, k.Name)
			}
			if err := cl.ContainerRemove(c.Context(), k.ID, true); err != nil {
				return err
			}
			return vm.Unlink(k.VM)
		},
	)
	var key string
	byName := c.RunE
	c.Args = func(c *cobra.Command, args []string) error {
		if key == "" {
			return cobra.MinimumNArgs(1)(c, args)
		}
		return cobra.NoArgs(c, args)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if key == "" {
			return byName(c, args)
		}
		cl, err := client()
		if err != nil {
			return err
		}
		return cl.Detach(c.Context(), key)
	}
	c.Flags().StringVar(
		&key,
		"key",
		"",
		"what was attached with this key instead; it is no error where there is nothing",
	)
	return c
}
