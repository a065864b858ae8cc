package main

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
)

func networkUpdate() *cobra.Command {
	var e egressFlags
	c := each("update NETWORK...", "Change where containers of networks may connect to outside",
		func(c *cobra.Command, cl *api.Client, ref string) error {
			var q api.NetworkUpdate
			q.Egress, q.AllowEgress = e.given(c.Flags())
			if q == (api.NetworkUpdate{}) {
				return errors.New("you must provide one or more flags when using this command")
			}
			return cl.NetworkUpdate(c.Context(), ref, q)
		})
	e.add(c.Flags())
	return c
}

// egressFlags are those that change where containers may connect to outside.
type egressFlags struct {
	mode  string
	allow []string
}

func (e *egressFlags) add(f *pflag.FlagSet) {
	f.StringVar(&e.mode, "egress", "", "destinations outside that --allow-egress does not name: allow or deny; no-rebind, "+
		"also behind one of them with a comma")
	f.StringArrayVar(&e.allow, "allow-egress", nil,
		"allow a destination, repeatable, in the place of the rules that there are; '' takes all of them away")
}

// given are the mode and the rules that were given; nil: they stay.
func (e *egressFlags) given(f *pflag.FlagSet) (mode *string, rules *[]string) {
	if f.Changed("egress") {
		mode = &e.mode
	}
	if f.Changed("allow-egress") {
		list := slices.DeleteFunc(slices.Clone(e.allow), func(s string) bool { return s == "" })
		rules = &list
	}
	return mode, rules
}
