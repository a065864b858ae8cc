package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/cgroup"
	"github.com/usernet/usernet/sandbox"
)

func infoCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info",
		Short: "Show the daemon's state",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			i, err := cl.Info(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(i)
			}
			printInfo(i)
			return nil
		}}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func printInfo(i api.Info) {
	fmt.Printf("Version: %s\nPid: %d\nSocket: %s\nState: %s\nRunning since: %s\n",
		i.Version, i.Pid, i.Socket, i.StateDir, i.Started.Format(time.RFC3339))
	fmt.Printf("Containers: %d\n Running: %d\n Exited: %d\nNetworks: %d\nConfined: %s\n",
		i.Containers, i.Running, i.Exited, i.Networks, cmp.Or(strings.Join(i.Confined, ", "), "no"))
	printCgroups(i.Cgroups)
	printBudgets(i.Budgets)
	printNeighbors(i.BGP)
	fmt.Println("Counters:")
	var names []string
	for k := range i.Counters {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Printf(" %s: %s\n", k, i.Counters[k])
	}
	for _, w := range i.Warnings {
		fmt.Println("WARNING:", w)
	}
}

// printCgroups shows whether containers can have limits.
func printCgroups(c api.Cgroups) {
	if c.Root == "" {
		fmt.Printf("Limits of containers: none (%s)\n", c.Error)
		return
	}
	fmt.Printf("Limits of containers: %s, in %s\n", strings.Join(c.Controllers, ", "), c.Root)
}

// printNeighbors shows the routers that the daemon speaks to.
func printNeighbors(list []api.BGPNeighbor) {
	for _, n := range list {
		state := "down"
		if n.Established {
			state = "established"
		}
		fmt.Printf("BGP neighbour %s AS %d: %s since %s, %d routes learned, %d announced", n.Addr, n.ASN, state,
			n.Since.Format(time.RFC3339), n.Learned, n.Announced)
		if n.Ignored+n.Malformed > 0 {
			fmt.Printf(", %d ignored, %d malformed", n.Ignored, n.Malformed)
		}
		if n.Error != "" {
			fmt.Printf(": %s", n.Error)
		}
		fmt.Println()
		for _, why := range slices.Sorted(maps.Keys(n.Withheld)) {
			fmt.Printf("  %d not announced: %s\n", n.Withheld[why], why)
		}
	}
}

// printBudgets shows how descriptors and memory are divided.
func printBudgets(b api.Budgets) {
	size := func(n int64) string {
		if n == 0 {
			return "no limit"
		}
		return units.BytesSize(float64(n))
	}
	fmt.Printf(
		"Descriptors for connections: %d of %d used, %d more kept for all else\n",
		b.DescriptorsUsed,
		b.Descriptors,
		b.DescriptorsReserve,
	)
	fmt.Printf("Memory for connections through gateways: %s of %s set aside; each container: %s\n",
		units.BytesSize(float64(b.MemoryUsed)), size(b.Memory), size(b.MemoryPerContainer))
	fmt.Printf("Memory of the daemon (GOMEMLIMIT): %s\n", size(b.GoMemoryLimit))
}

func checkCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Test what usernet needs of this machine",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			results := append(sandbox.Check(), checkLimits(c.Context()))
			missing := slices.ContainsFunc(results, func(r sandbox.Requirement) bool { return !r.OK && r.Needed })
			if asJSON {
				if err := printJSON(results); err != nil {
					return err
				}
			} else {
				printCheck(results)
			}
			if missing {
				return exitCode(1)
			}
			return nil
		}}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

// daemonWait is how long a check waits for the daemon's answer.
const daemonWait = 5 * time.Second

// checkLimits says whether containers can have limits, which depends on the cgroup that the daemon was started in.
func checkLimits(ctx context.Context) sandbox.Requirement {
	r := sandbox.Requirement{Name: "limits of containers"}
	ctx, cancel := context.WithTimeout(ctx, daemonWait)
	defer cancel()
	var i api.Info
	cl, err := client()
	if err == nil {
		i, err = cl.Info(ctx)
	}
	switch {
	case err != nil:
		u := cgroup.NoDaemon()
		r.Detail, r.Fix = u.Reason, u.Fix
	case i.Cgroups.Root == "":
		r.Detail, r.Fix = i.Cgroups.Error, i.Cgroups.Fix
	default:
		r.OK, r.Detail = true, strings.Join(i.Cgroups.Controllers, ", ")+", in "+i.Cgroups.Root
	}
	return r
}

func printCheck(results []sandbox.Requirement) {
	for _, r := range results {
		switch {
		case r.OK:
			fmt.Printf("ok       %s: %s\n", r.Name, r.Detail)
		case r.Needed:
			fmt.Printf("MISSING  %s: %s; %s\n", r.Name, r.Detail, r.Fix)
		default:
			fmt.Printf("limited  %s: %s; %s\n", r.Name, r.Detail, r.Fix)
		}
	}
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(map[string]string{
					"version": version, "go": runtime.Version(), "arch": runtime.GOARCH,
					"docker_api": api.APIVersion, "docker_api_min": api.MinAPIVersion,
				})
			}
			fmt.Println("usernet", version)
			return nil
		}}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON, with the versions of Docker's API that are spoken")
	return c
}

// exitWait is how long the daemon's process may take to end before the daemon itself is asked.
const exitWait = 10 * time.Second

// exitPoll is how often Ctrl-C is looked for meanwhile.
const exitPoll = 100 * time.Millisecond

// shutdownPoll is how often a daemon that is ending is looked at again.
const shutdownPoll = 20 * time.Millisecond

func shutdownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "End the daemon; containers go on",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			before, err := cl.Info(ctx)
			if err != nil {
				return err
			}
			process, err := unix.PidfdOpen(before.Pid, 0)
			if err != nil {
				process = -1 // of another pid namespace
			}
			if err := cl.Shutdown(ctx); err != nil && !errors.Is(err, api.ErrDaemonEnded) {
				return err
			}
			if process >= 0 {
				defer unix.Close(process)
				if ended, err := awaitExit(ctx, process); ended || err != nil {
					return err
				}
			}
			return awaitEnd(ctx, cl, before.Pid)
		}}
}

// awaitExit waits until a process has ended, by its descriptor, and says whether it did. It asks the daemon nothing:
// each request at the socket of a service manager starts a daemon again. It is bounded, since the daemon's number may
// be another process's in this pid namespace.
func awaitExit(ctx context.Context, process int) (bool, error) {
	for end := time.Now().Add(exitWait); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(exitPoll.Milliseconds()))
		switch {
		case n > 0:
			return true, nil
		case err != nil && !errors.Is(err, unix.EINTR): // a signal of Go's runtime, or Ctrl-C
			return false, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		}
	}
	return false, nil
}

// awaitEnd returns when the daemon with process id pid answers no more. Where a service manager starts another, that
// one answers.
func awaitEnd(ctx context.Context, cl *api.Client, pid int) error {
	for {
		now, err := cl.Info(ctx)
		switch {
		case errors.Is(err, api.ErrNoDaemon), err == nil && now.Pid != pid:
			return nil
		case err != nil && !errors.Is(err, api.ErrDaemonEnded):
			return err
		}
		select {
		case <-time.After(shutdownPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
