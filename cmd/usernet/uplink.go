package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay/uplink"
)

func uplinkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "uplink",
		Short: "See which physical networks there are",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(uplinkCheck())
	return c
}

// errUnusable ends `uplink check` where something has to be done, which it has said.
var errUnusable = errdefs.About(errdefs.TopicUplink, errors.New("the device cannot be used yet"))

func uplinkCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [DEVICE]...",
		Short: "Say whether devices can be used, and what the administrator has to do",
		RunE: func(c *cobra.Command, names []string) error {
			if len(names) == 0 {
				all, err := uplink.All()
				if err != nil {
					return err
				}
				for _, i := range all {
					names = append(names, i.Name)
				}
			}
			if len(names) == 0 {
				names = []string{"uplink0"} // there is none: how one is made
			}
			me := strconv.Itoa(os.Getuid())
			if u, err := user.Current(); err == nil && u.Username != "" {
				me = u.Username
			}
			usable := true
			for _, name := range names {
				a := uplink.Advise(name, me)
				usable = usable && a.Usable
				printAdvice(c.OutOrStdout(), name, a)
			}
			if !usable {
				return errUnusable
			}
			return nil
		},
	}
}

func printAdvice(w io.Writer, name string, a uplink.Advice) {
	fmt.Fprintf(w, "%s: %s\n", name, a.State)
	for _, way := range a.Ways {
		fmt.Fprintf(w, "  %s:\n", way.Title)
		for _, command := range way.Commands {
			fmt.Fprintf(w, "    %s\n", command)
		}
	}
	for _, note := range a.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
	if a.Usable {
		fmt.Fprintf(w, "  it can be used: usernet network create -d macvlan -o parent=%s NETWORK\n", name)
	}
}
