package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/sandbox"
)

func infoCommand() *cobra.Command {
	return &cobra.Command{Use: "info", Short: "Show the daemon's state", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		i, err := cl.Info(c.Context())
		if err != nil {
			return err
		}
		fmt.Printf("Version: %s\nSocket: %s\nState: %s\nRunning since: %s\nContainers: %d\n Running: %d\n Exited: %d\nNetworks: %d\nConfined: %s\n",
			i.Version, i.Socket, i.StateDir, i.Started.Format(time.RFC3339), i.Containers, i.Running, i.Exited, i.Networks, cmp.Or(strings.Join(i.Confined, ", "), "no"))
		printBudgets(i.Budgets)
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
		return nil
	}}
}

// printBudgets shows how descriptors and memory are divided.
func printBudgets(b api.Budgets) {
	size := func(n int64) string {
		if n == 0 {
			return "no limit"
		}
		return units.BytesSize(float64(n))
	}
	fmt.Printf("Descriptors for connections: %d of %d used, %d more kept for all else\n", b.DescriptorsUsed, b.Descriptors, b.DescriptorsReserve)
	fmt.Printf("Memory for connections through gateways: %s of %s set aside; each container: %s\n",
		units.BytesSize(float64(b.MemoryUsed)), size(b.Memory), size(b.MemoryPerContainer))
	fmt.Printf("Memory of the daemon (GOMEMLIMIT): %s\n", size(b.GoMemoryLimit))
}

func checkCommand() *cobra.Command {
	return &cobra.Command{Use: "check", Short: "Test what usernet needs of this machine", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		failed := false
		for _, r := range sandbox.Check() {
			switch {
			case r.OK:
				fmt.Printf("ok       %s: %s\n", r.Name, r.Detail)
			case r.Needed:
				failed = true
				fmt.Printf("MISSING  %s: %s; %s\n", r.Name, r.Detail, r.Fix)
			default:
				fmt.Printf("limited  %s: %s; %s\n", r.Name, r.Detail, r.Fix)
			}
		}
		if failed {
			return exitCode(1)
		}
		return nil
	}}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {
		fmt.Println("usernet", version)
	}}
}
