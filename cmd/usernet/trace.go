package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
)

// Exit statuses of trace, by how it ends. 1 is an error of the command itself.
var traceStatus = map[api.TraceKind]int{
	api.TracePasses:      0,
	api.TraceReached:     0,
	api.TraceRefused:     2,
	api.TraceProhibited:  3,
	api.TraceUnreachable: 4,
	api.TraceNoAnswer:    5,
	api.TraceUnresolved:  6,
	api.TraceFailed:      7,
}

// traceDisagrees is the exit status where something else happened than what was predicted.
const traceDisagrees = 8

func traceCommand() *cobra.Command {
	var q api.TraceRequest
	var asJSON bool
	c := &cobra.Command{
		Use:   "trace CONTAINER DESTINATION[:PORT]",
		Short: "Say what becomes of a container's packets to a destination, and try it",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			q.Container, q.Destination = args[0], args[1]
			t, err := cl.Trace(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(t)
			} else {
				err = printTrace(t)
			}
			if code := traceCode(t); err == nil && code != 0 {
				return exitCode(code)
			}
			return err
		},
	}
	c.Flags().BoolVar(&q.UDP, "udp", false, "send a datagram in the place of opening a connection")
	c.Flags().BoolVar(&q.DryRun, "dry-run", false, "only say what would happen, and send nothing")
	c.Flags().DurationVar(&q.Timeout, "timeout", 5*time.Second, "how long an answer is waited for")
	timeBetween(c.Flags(), "timeout", time.Millisecond, api.MaxTraceTimeout, "5s")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

// traceCode is the exit status for a trace. A policy's refusal looks like another one to the container.
func traceCode(t api.Trace) int {
	switch {
	case t.Actual == nil:
		return traceStatus[t.Predicted.Kind]
	case t.Agrees == "no":
		return traceDisagrees
	case t.Predicted.Kind == api.TraceProhibited:
		return traceStatus[api.TraceProhibited]
	}
	return traceStatus[t.Actual.Kind]
}

func printTrace(t api.Trace) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 1, columnGap, ' ', 0)
	fmt.Fprintf(w, "%s to %s, %s\n", t.Container, t.Destination, t.Proto)
	for _, s := range t.Steps {
		fmt.Fprintf(w, "%s\t%s\n", s.Stage, s.Text)
		if s.Remedy != "" {
			fmt.Fprintf(w, "\tremedy: %s\n", s.Remedy)
		}
	}
	fmt.Fprintf(w, "predicted\t%s\n", t.Predicted.Kind)
	if t.Actual != nil {
		fmt.Fprintf(w, "tried\t%s: %s (%s)\n", t.Actual.Kind, t.Actual.Text, t.Actual.Took.Round(10*time.Microsecond))
		fmt.Fprintf(w, "agrees\t%s: %s\n", t.Agrees, t.Because)
	}
	return w.Flush()
}
