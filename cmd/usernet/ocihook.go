package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/runtimes/oci"
)

func ociHookCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "oci-hook " + strings.Join(oci.Stages, "|"),
		Short:     "Give a container of runc, crun or Podman the networks that its annotations name",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: oci.Stages,
		RunE: func(c *cobra.Command, args []string) error {
			given := ""
			if c.Flags().Changed("host") {
				given = host
			}
			return oci.Hook{
				Stage: args[0], Socket: given, State: os.Stdin, Getenv: os.Getenv, Stderr: os.Stderr,
			}.Run(c.Context())
		},
	}
}
