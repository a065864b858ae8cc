package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func dnsCommand() *cobra.Command {
	c := &cobra.Command{Use: "dns", Short: "Ask the embedded DNS server"}
	c.AddCommand(dnsQueryCommand())
	return c
}

func dnsQueryCommand() *cobra.Command {
	var as string
	var asJSON bool
	c := &cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "Show what a container is answered, and where the answer comes from",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			qtype := "A"
			if len(args) > 1 {
				qtype = args[1]
			}
			a, err := cl.DNSQuery(c.Context(), as, args[0], qtype)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a)
			}
			for _, r := range a.Records {
				fmt.Println(r)
			}
			fmt.Printf(
				";; %s, %d records, from %s in %s\n",
				a.Rcode,
				len(a.Records),
				a.Source,
				a.Duration.Round(time.Microsecond),
			)
			return nil
		},
	}
	c.Flags().StringVar(&as, "as", "", "the container that asks; without it, names of containers are unknown")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}
