package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func attachCommand() *cobra.Command {
	var n netFlags
	var spec network.ContainerSpec
	var pid int
	c := &cobra.Command{Use: "attach --pid PID --name NAME [flags]", Short: "Give a sandbox that something else made a network", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if (pid == 0) == (spec.NetNS == "") {
				return fmt.Errorf("give the sandbox as --pid PID or --netns PATH")
			}
			if spec.UserNS != "" && spec.NetNS == "" {
				return fmt.Errorf("--userns goes with --netns")
			}
			if err := n.apply(&spec); err != nil {
				return err
			}
			spec.Attached = true
			cl, err := startedClient(c.Context())
			if err != nil {
				return err
			}
			made, err := create(c.Context(), cl, spec)
			if err != nil {
				return err
			}
			id := made.Container.ID
			if _, err := cl.ContainerStart(c.Context(), id, api.Started{Pid: pid}); err != nil {
				_ = cl.ContainerRemove(c.Context(), id, false)
				return err
			}
			fmt.Println(id)
			return nil
		}}
	n.add(c.Flags())
	c.Flags().IntVar(&pid, "pid", 0, "a process in the sandbox")
	c.Flags().StringVar(&spec.NetNS, "netns", "", "the sandbox's network namespace")
	c.Flags().StringVar(&spec.UserNS, "userns", "", "the user namespace that owns it (found by itself)")
	c.Flags().StringVar(&spec.Name, "name", "", "the container's name")
	c.Flags().StringVar(&spec.Hostname, "hostname", "", "one more name for it")
	return c
}

func detachCommand() *cobra.Command {
	return each("detach NAME...", "Take usernet's interfaces out of attached sandboxes", func(c *cobra.Command, cl *api.Client, ref string) error {
		k, err := cl.Container(c.Context(), ref)
		if err != nil {
			return err
		}
		if !k.Attached {
			return fmt.Errorf("container %s was not attached: stop it with `usernet stop %s`", k.Name, k.Name)
		}
		return cl.ContainerRemove(c.Context(), k.ID, true)
	})
}
