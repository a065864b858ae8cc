package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/usernet/usernet/api"
)

func flowsCommand() *cobra.Command {
	var asJSON, watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "flows [CONTAINER]",
		Short: "Show the connections and associations through the gateways",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			container := ""
			if len(args) > 0 {
				container = args[0]
			}
			for {
				list, err := cl.Flows(c.Context(), container)
				if err != nil {
					return err
				}
				slices.SortFunc(list, func(a, b api.Flow) int {
					return cmp.Or(cmp.Compare(a.Container, b.Container), a.Created.Compare(b.Created))
				})
				if watch && term.IsTerminal(int(os.Stdout.Fd())) {
					fmt.Print("\x1b[H\x1b[2J") // the cursor to the corner, the screen empty (ECMA-48)
				}
				if asJSON {
					err = printJSON(list)
				} else {
					err = writeFlows(os.Stdout, list)
				}
				if err != nil || !watch {
					return err
				}
				select {
				case <-time.After(every):
				case <-c.Context().Done():
					return nil
				}
			}
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON; with --watch, one array after another")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show them again and again until interrupted")
	c.Flags().DurationVar(&every, "interval", time.Second, "how often, with --watch")
	timeBetween(c.Flags(), "interval", minInterval, maxInterval, "")
	return c
}

func writeFlows(to io.Writer, list []api.Flow) error {
	w := tabwriter.NewWriter(to, 6, 1, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tPROTO\tDIR\tINSIDE\tOUTSIDE\tHOST SIDE\tSTATE\tPATH\tIN\tOUT\tAGE")
	for _, f := range list {
		fmt.Fprintf(
			w,
			"%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			f.Container,
			f.Proto,
			f.Direction,
			f.Inside,
			f.Outside,
			f.HostSide,
			f.State,
			f.Path,
			amount(f.BytesIn, f.PacketsIn)+lost(f.PacketsLost),
			amount(f.BytesOut, f.PacketsOut),
			units.HumanDuration(time.Since(f.Created)),
		)
	}
	return w.Flush()
}

// lost says how many packets were lost, where any were.
func lost(packets uint64) string {
	if packets == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d lost)", packets)
}

// amount is bytes, and packets where those are counted.
func amount(bytes, packets uint64) string {
	if packets == 0 {
		return units.BytesSize(float64(bytes))
	}
	return fmt.Sprintf("%s/%d", units.BytesSize(float64(bytes)), packets)
}
