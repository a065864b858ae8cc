package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
)

func networkUpdate() *cobra.Command {
	var egress string
	var allow []string
	c := each("update NETWORK...", "Change where containers of networks may connect to outside",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			var q api.NetworkUpdate
			if c.Flags().Changed("egress") {
				q.Egress = &egress
			}
			if c.Flags().Changed("allow-egress") {
				rules := slices.DeleteFunc(slices.Clone(allow), func(s string) bool { return s == "" })
				q.AllowEgress = &rules
			}
			if q == (api.NetworkUpdate{}) {
				return errors.New("you must provide one or more flags when using this command")
			}
			return cl.NetworkUpdate(c.Context(), ref, q)
		})
	c.Flags().StringVar(&egress, "egress", "",
		"destinations outside that --allow-egress does not name: allow or deny; no-rebind, also behind one of them with a comma")
	c.Flags().StringArrayVar(&allow, "allow-egress", nil,
		"allow a destination, repeatable, in the place of the rules that there are; '' takes all of them away")
	return c
}
