package main

import (
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

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
		var i api.Info
		if err := cl.Do(c.Context(), "GET", "/usernet/info", nil, &i); err != nil {
			return err
		}
		fmt.Printf("Version: %s\nSocket: %s\nState: %s\nRunning since: %s\nContainers: %d\n Running: %d\n Exited: %d\nNetworks: %d\nCounters:\n",
			i.Version, i.Socket, i.StateDir, i.Started.Format(time.RFC3339), i.Containers, i.Running, i.Exited, i.Networks)
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

func flowsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "flows [CONTAINER]", Short: "List connections through the gateways", Args: cobra.MaximumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		q := ""
		if len(args) > 0 {
			q = "?container=" + args[0]
		}
		var list []api.Flow
		if err := cl.Do(c.Context(), "GET", "/usernet/flows"+q, nil, &list); err != nil {
			return err
		}
		if asJSON {
			return printJSON(list)
		}
		w := tabwriter.NewWriter(os.Stdout, 6, 1, 2, ' ', 0)
		fmt.Fprintln(w, "CONTAINER\tPROTO\tDIR\tINSIDE\tOUTSIDE\tHOST SIDE\tSTATE\tIN\tOUT\tAGE")
		for _, f := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", f.Container, f.Proto, f.Direction, f.Inside, f.Outside, f.HostSide, f.State, f.BytesIn, f.BytesOut, time.Since(f.Created).Round(time.Second))
		}
		return w.Flush()
	}}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, Run: func(*cobra.Command, []string) {
		fmt.Println("usernet", version)
	}}
}
