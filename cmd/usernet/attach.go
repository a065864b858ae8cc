package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/runtimes/vm"
	"github.com/usernet/usernet/sandbox"
)

// attachFlags are the flags of attach.
type attachFlags struct {
	net          netFlags
	spec         network.ContainerSpec
	pid          int
	key, ifname  string
	unconfigured bool
	machine      vmFlags
}

func attachCommand() *cobra.Command {
	var a attachFlags
	c := &cobra.Command{
		Use:   "attach --pid PID --name NAME [flags]",
		Short: "Give a sandbox that something else made, or a virtual machine, a network",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.machine.given() {
				return a.attachMachine(c)
			}
			return a.attach(c.Context())
		},
	}
	a.add(c.Flags())
	return c
}

// add defines the flags.
func (a *attachFlags) add(f *pflag.FlagSet) {
	a.net.add(f)
	a.machine.add(f)
	f.IntVar(&a.pid, "pid", 0, "a process in the sandbox")
	countBetween(f, "pid", 1, maxPid, "a process's id")
	f.StringVar(&a.spec.NetNS, "netns", "", "the sandbox's network namespace")
	f.StringVar(&a.spec.UserNS, "userns", "", "the user namespace that owns it (found by itself)")
	f.StringVar(&a.key, "key", "",
		"`KEY`: a key of your choice, with which the command can be repeated; usernet detach --key KEY ends it")
	f.StringVar(&a.ifname, "interface", "", "the interface's name in the sandbox, on its first network (eth0, eth1 ...)")
	f.BoolVar(&a.unconfigured, "unconfigured", false,
		"leave the interfaces without addresses and routes: something else sets those that are reserved")
	f.BoolVar(&a.spec.ShareAPI, "share-api", false, "answer requests to usernet's API from within the sandbox")
	f.StringVar(&a.spec.Name, "name", "", "the container's name")
	f.StringVar(&a.spec.Hostname, "hostname", "", "one more name for it")
}

// attachMachine attaches a virtual machine.
func (a *attachFlags) attachMachine(c *cobra.Command) error {
	if a.pid != 0 || a.spec.NetNS != "" || a.ifname != "" || a.unconfigured {
		return fmt.Errorf("a virtual machine has no network namespace: leave --pid, --netns, --interface and " +
			"--unconfigured out")
	}
	if err := a.net.apply(&a.spec); err != nil {
		return err
	}
	return a.machine.attach(c, api.AttachRequest{Key: a.key, Spec: a.spec})
}

// attach sends the sandbox's network namespace to the daemon, and prints the container's id.
func (a *attachFlags) attach(ctx context.Context) error {
	if (a.pid == 0) == (a.spec.NetNS == "") {
		return fmt.Errorf("give the sandbox as --pid PID or --netns PATH, or a virtual machine as --vm-socket PATH")
	}
	if a.spec.UserNS != "" && a.spec.NetNS == "" {
		return fmt.Errorf("--userns goes with --netns")
	}
	if err := a.net.apply(&a.spec); err != nil {
		return err
	}
	netns, err := a.openNetNS() // what is wrong with it needs no daemon
	if err != nil {
		return err
	}
	defer func() { _ = netns.Close() }()
	if len(a.spec.Networks) == 0 {
		a.spec.Networks = []network.NamedEndpointSpec{{Network: a.spec.NetworkMode}}
	}
	a.spec.Networks[0].Interface = a.ifname
	for i := range a.spec.Networks {
		a.spec.Networks[i].Unconfigured = a.unconfigured
	}
	cl, err := startedClient(ctx)
	if err != nil {
		return err
	}
	request := api.AttachRequest{Key: a.key, Pid: a.pid, Spec: a.spec}
	made, err := cl.Attach(ctx, request, netns)
	// A process that is just being started, as by unshare(1) in the background, has the daemon's namespace until it has
	// one of its own.
	for deadline := time.Now().Add(namespaceWait); a.pid != 0 && isOwnNetwork(err) && time.Now().Before(deadline); {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		_ = netns.Close()
		if netns, err = a.openNetNS(); err != nil {
			return err
		}
		made, err = cl.Attach(ctx, request, netns)
	}
	if err != nil {
		return err
	}
	fmt.Println(made.ID)
	return nil
}

// namespaceWait is how long a process may take to get a network namespace of its own.
const namespaceWait = 5 * time.Second

// openNetNS opens the network namespace that the flags name.
func (a *attachFlags) openNetNS() (*os.File, error) {
	f, err := sandbox.OpenNetNS(cmp.Or(a.spec.NetNS, fmt.Sprintf("/proc/%d/ns/net", a.pid)))
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return f, nil
}

// isOwnNetwork says whether a daemon has refused a namespace since it is its own.
func isOwnNetwork(err error) bool {
	return err != nil && strings.Contains(err.Error(), sandbox.ErrOwnNetwork.Error())
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
